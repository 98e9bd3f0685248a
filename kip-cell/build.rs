//! Compiles the two protocols the agent speaks to the container runtime, with protox, so that no system `protoc` is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let protos = ["proto/cri/runtime.proto", "proto/containerd/events.proto"];
    let descriptors = protox::compile(protos, ["proto/cri", "proto/containerd"])?;
    // The servers are generated for the tests' scripted runtime; the linker drops them from the agent.
    tonic_prost_build::configure()
        .generate_default_stubs(true)
        .compile_fds(descriptors)?;
    Ok(())
}
