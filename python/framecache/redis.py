"""Redis and Valkey with settings of their own: ``Cache(Redis(client, max_remote_bytes=16 << 20))``."""

from __future__ import annotations

from framecache._redis import Redis
from framecache._redis_cluster import Cluster
from framecache._redis_publish import PublishingRedis

__all__ = ["Cluster", "PublishingRedis", "Redis"]
