//! Which methods there are, by the descriptor of the wire: what callers name beside them is hostile text, and goes nowhere.

use prost::Message;
use prost_types::FileDescriptorSet;
use std::{collections::HashSet, sync::LazyLock};

static METHODS: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let set = FileDescriptorSet::decode(strongroom_proto::DESCRIPTOR).unwrap_or_default();
    let paths = set.file.iter().flat_map(|file| {
        let services = file.service.iter();
        services.flat_map(move |service| {
            let methods = service.method.iter();
            methods.map(move |method| format!("/{}.{}/{}", file.package(), service.name(), method.name()))
        })
    });
    paths.collect()
});

/// The method of a path, `/strongroom.v1.Kv/Get`, if there is one.
pub fn known(path: &str) -> Option<&'static str> {
    METHODS.get(path).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_known() {
        for path in ["/strongroom.v1.Kv/Get", "/strongroom.v1.Operator/Seal"] {
            assert_eq!(known(path), Some(path));
        }
        for path in [
            "/strongroom.v1.Kv/Steal",
            "",
            "/",
            "strongroom.v1.Kv/Get",
            "/strongroom.v1.Kv/Get/",
        ] {
            assert_eq!(known(path), None, "{path}");
        }
    }
}
