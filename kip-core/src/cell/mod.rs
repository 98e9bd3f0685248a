//! PodRuntime for cells: gRPC with mutual TLS to the agent.
