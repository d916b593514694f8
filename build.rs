//! Generates the API's types from `proto/`, without needing a `protoc` on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["forerun/v1/forerun.proto"], ["proto"])?;
    // Messages are printed as JSON by the CLI under the schema's own field names.
    tonic_prost_build::configure()
        .message_attribute(".", "#[derive(serde::Serialize)]")
        .compile_fds(descriptors)?;
    Ok(())
}
