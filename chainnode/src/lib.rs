//! Catena: chainnode.
