//! Choices across pods, as a pure function.
