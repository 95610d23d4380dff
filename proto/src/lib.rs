//! The wire of Strongroom, package `strongroom.v1`, and nothing else: messages, service traits, descriptors.
//! Messages that carry secrets print as `redacted` (`redacted.rs`); they are listed in `build.rs`.
#![allow(missing_docs)] // the .proto files carry the documentation

mod redacted;

/// Messages, clients and server traits of package `strongroom.v1`.
pub mod v1 {
    #![allow(clippy::all, clippy::pedantic)]
    tonic::include_proto!("strongroom.v1");
}

/// The encoded `FileDescriptorSet`, for server reflection.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));
