//! The versions of a secret and its metadata.

use crate::{
    failure::Failure,
    output::{Answer, Human, or_dash},
};
use serde_json::json;
use std::collections::BTreeMap;
use strongroom_client::{Client, v1};

pub async fn history(client: &Client, path: &str) -> Result<v1::KvHistoryResponse, Failure> {
    let request = v1::KvHistoryRequest { path: path.to_owned() };
    Ok(client
        .read(request, |s, r| async move { s.kv().history(r).await })
        .await?)
}

pub fn history_shown(path: &str, history: &v1::KvHistoryResponse) -> Answer {
    let state = |version: &v1::KvVersion| match version {
        v if v.destroyed => "destroyed".to_owned(),
        v if !v.deleted_at.is_empty() => format!("deleted {}", v.deleted_at),
        _ => "live".to_owned(),
    };
    let rows = history
        .versions
        .iter()
        .map(|v| {
            vec![
                v.version.to_string(),
                v.created_at.clone(),
                state(v),
                or_dash(&v.labels.join(", ")),
            ]
        })
        .collect();
    let versions: Vec<_> = history
        .versions
        .iter()
        .map(|v| {
            json!({
                "version": v.version,
                "created_at": v.created_at,
                "deleted_at": v.deleted_at,
                "destroyed": v.destroyed,
                "labels": v.labels,
            })
        })
        .collect();
    let json = json!({"path": path, "current": history.current, "versions": versions});
    Answer::new(
        json,
        Human::Table {
            head: vec!["version", "created", "state", "labels"],
            rows,
        },
    )
}

pub fn metadata_shown(path: &str, history: &v1::KvHistoryResponse) -> Answer {
    let json = json!({
        "path": path,
        "current": history.current,
        "versions_max": history.versions_max,
        "cas_required": history.cas_required,
        "custom": history.custom,
    });
    let mut pairs = vec![
        ("current".to_owned(), history.current.to_string()),
        ("versions_max".to_owned(), history.versions_max.to_string()),
        ("cas_required".to_owned(), history.cas_required.to_string()),
    ];
    pairs.extend(
        history
            .custom
            .iter()
            .map(|(key, value)| (format!("custom {key}"), value.clone())),
    );
    Answer::new(json, Human::Pairs(pairs))
}

/// Custom entries after a change.
pub fn custom(mut entries: BTreeMap<String, String>, set: Vec<(String, String)>, unset: &[String]) -> v1::KvCustom {
    entries.retain(|key, _| !unset.contains(key));
    entries.extend(set);
    v1::KvCustom { entries }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn custom_entries_are_merged() {
        let before = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())].into();
        let after = custom(before, vec![("c".to_owned(), "3".to_owned())], &["a".to_owned()]);
        assert_eq!(
            after.entries.into_iter().map(|(k, v)| k + &v).collect::<Vec<_>>(),
            ["b2", "c3"]
        );
    }
}
