//! What EC2 sells: instance types, where they are sold, and for how much.
