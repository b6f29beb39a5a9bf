//! Behaviour of the embedded broker as a whole.
