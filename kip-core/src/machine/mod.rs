//! The pure state machine of one pod.
