//! Catena: client.
