//! The ring under every order in which its threads can run.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

/// The ring, over the locks of the model.
#[path = "../src/memory/ring.rs"]
#[allow(dead_code, unreachable_pub, reason = "the model uses a part of it")]
mod ring;

mod sync {
    pub(super) use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
    pub(super) use std::sync::PoisonError;
}

use loom::sync::Arc;
use ring::{Abandoned, SequenceRing};
use std::num::NonZeroUsize;

fn ring(window: usize) -> Arc<SequenceRing<usize>> {
    Arc::new(SequenceRing::new(NonZeroUsize::new(window).unwrap()))
}

#[test]
fn two_workers_and_a_receiver() {
    loom::model(|| {
        let ring = ring(2);
        let places = [SequenceRing::reserve(&ring).unwrap(), SequenceRing::reserve(&ring).unwrap()];
        assert!(SequenceRing::reserve(&ring).is_none());
        let workers = places.map(|place| {
            loom::thread::spawn(move || {
                let sequence = place.sequence() as usize;
                place.fill(sequence);
            })
        });
        assert_eq!([ring.recv_ordered(), ring.recv_ordered(), ring.recv_ordered()], [Some(Ok(0)), Some(Ok(1)), None]);
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
}

#[test]
fn one_that_is_abandoned_holds_nobody_up() {
    loom::model(|| {
        let ring = ring(2);
        let [first, second] = [SequenceRing::reserve(&ring).unwrap(), SequenceRing::reserve(&ring).unwrap()];
        let workers = [loom::thread::spawn(move || drop(first)), loom::thread::spawn(move || second.fill(1))];
        assert_eq!([ring.recv_ordered(), ring.recv_ordered()], [Some(Err(Abandoned)), Some(Ok(1))]);
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
}

#[test]
fn a_place_is_used_again_when_its_result_was_handed_on() {
    loom::model(|| {
        let ring = ring(1);
        for item in 0..2 {
            let place = SequenceRing::reserve(&ring).unwrap();
            let worker = loom::thread::spawn(move || place.fill(item));
            assert_eq!(ring.recv_ordered(), Some(Ok(item)));
            assert_eq!(ring.outstanding(), 0);
            worker.join().unwrap();
        }
        assert_eq!(ring.stats().next_sequence_id, 2);
    });
}

#[test]
fn two_receivers_get_each_result_once() {
    loom::model(|| {
        let ring = ring(2);
        let places = [SequenceRing::reserve(&ring).unwrap(), SequenceRing::reserve(&ring).unwrap()];
        let other = Arc::clone(&ring);
        let receiver = loom::thread::spawn(move || other.recv_ordered());
        for place in places.into_iter().rev() {
            let sequence = place.sequence() as usize;
            place.fill(sequence);
        }
        let mut results = [ring.recv_ordered(), receiver.join().unwrap()];
        results.sort_by_key(|result| result.and_then(Result::ok));
        assert_eq!(results, [Some(Ok(0)), Some(Ok(1))]);
    });
}
