//! Catena: master.
