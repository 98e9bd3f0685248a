//! The virtual kubelet: a Kubernetes Node, its pods and its HTTPS endpoint.
