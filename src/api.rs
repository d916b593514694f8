//! The API `forerun.v1` over gRPC, generated from `proto/forerun/v1/forerun.proto`.

/// Version 1 of the API: messages, the client and the server's trait.
#[allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::expect_used)]
pub mod v1 {
    tonic::include_proto!("forerun.v1");
}
