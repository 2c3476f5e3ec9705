//! Pairs of strong and weak pointers.

use std::{rc, sync};

/// A pointer that keeps its value alive.
pub trait StrongRef: Clone {
    /// Its weak counterpart.
    type Weak: WeakRef<Strong = Self>;

    /// A weak pointer to the same value.
    fn downgrade(&self) -> Self::Weak;

    /// Whether both point to one value.
    fn ptr_eq(&self, other: &Self) -> bool;
}

/// A pointer that does not keep its value alive.
pub trait WeakRef {
    /// Its strong counterpart.
    type Strong: StrongRef<Weak = Self>;

    /// A strong pointer to the value, while there is one.
    fn upgrade(&self) -> Option<Self::Strong>;

    /// Whether the value is gone; it does not come back.
    fn is_expired(&self) -> bool;
}

impl<T: ?Sized> StrongRef for rc::Rc<T> {
    type Weak = rc::Weak<T>;

    fn downgrade(&self) -> rc::Weak<T> {
        Self::downgrade(self)
    }

    fn ptr_eq(&self, other: &Self) -> bool {
        Self::ptr_eq(self, other)
    }
}

impl<T: ?Sized> WeakRef for rc::Weak<T> {
    type Strong = rc::Rc<T>;

    fn upgrade(&self) -> Option<rc::Rc<T>> {
        self.upgrade()
    }

    fn is_expired(&self) -> bool {
        self.strong_count() == 0
    }
}

impl<T: ?Sized> StrongRef for sync::Arc<T> {
    type Weak = sync::Weak<T>;

    fn downgrade(&self) -> sync::Weak<T> {
        Self::downgrade(self)
    }

    fn ptr_eq(&self, other: &Self) -> bool {
        Self::ptr_eq(self, other)
    }
}

impl<T: ?Sized> WeakRef for sync::Weak<T> {
    type Strong = sync::Arc<T>;

    fn upgrade(&self) -> Option<sync::Arc<T>> {
        self.upgrade()
    }

    fn is_expired(&self) -> bool {
        self.strong_count() == 0
    }
}
