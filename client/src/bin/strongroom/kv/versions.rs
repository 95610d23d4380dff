//! The versions of a secret and its metadata.

use crate::{
    cli::pair,
    context::Context,
    failure::Failure,
    output::{Answer, Human, or_dash},
};
use clap::Args;
use serde_json::json;
use std::collections::BTreeMap;
use strongroom_client::{Client, v1};

/// Metadata, shown or changed.
#[derive(Debug, Args)]
pub struct Metadata {
    /// `kv/prod/db`
    path: String,
    /// Set a custom entry (no secrets: metadata is shown by `history`)
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
    /// Remove a custom entry
    #[arg(long, value_name = "KEY")]
    unset: Vec<String>,
    /// Keep this many versions, 1 to 1000
    #[arg(long, value_name = "NUMBER")]
    versions_max: Option<u32>,
    /// Refuse to write without --cas
    #[arg(long, value_name = "true|false")]
    cas_required: Option<bool>,
    /// Let a label point to a version; 0 removes the label
    #[arg(long, value_name = "LABEL=VERSION", value_parser = label)]
    label: Vec<(String, u64)>,
}

fn label(text: &str) -> Result<(String, u64), String> {
    let (name, version) = pair(text)?;
    version
        .parse()
        .map(|version| (name, version))
        .map_err(|_| "write LABEL=VERSION".to_owned())
}

impl Metadata {
    /// The daemon replaces custom entries as a whole, so they are read first.
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        let client = context.client().await?;
        let present = history(&client, &self.path).await?;
        let custom = (!self.set.is_empty() || !self.unset.is_empty())
            .then(|| custom(present.custom.clone(), self.set, &self.unset));
        if custom.is_none() && self.versions_max.is_none() && self.cas_required.is_none() && self.label.is_empty() {
            return Ok(metadata_shown(&self.path, &present));
        }
        let request = v1::KvSetMetadataRequest {
            path: self.path.clone(),
            custom,
            versions_max: self.versions_max,
            cas_required: self.cas_required,
            labels: self.label.into_iter().collect(),
            ..Default::default()
        };
        client
            .change(request, |s, r| async move { s.kv().set_metadata(r).await })
            .await?;
        Ok(metadata_shown(&self.path, &history(&client, &self.path).await?))
    }
}

pub async fn delete(context: &Context, path: String, versions: Vec<u64>) -> Result<Answer, Failure> {
    let request = v1::KvDeleteRequest {
        path: path.clone(),
        versions,
        ..Default::default()
    };
    let client = context.client().await?;
    client
        .change(request, |s, r| async move { s.kv().delete(r).await })
        .await?;
    let said = format!("{path}: deleted; `strongroom kv undelete` brings it back");
    Ok(Answer::said(json!({"path": path}), said))
}

pub async fn undelete(context: &Context, path: String, versions: Vec<u64>) -> Result<Answer, Failure> {
    let request = v1::KvUndeleteRequest {
        path: path.clone(),
        versions,
        ..Default::default()
    };
    let client = context.client().await?;
    client
        .change(request, |s, r| async move { s.kv().undelete(r).await })
        .await?;
    Ok(Answer::said(json!({"path": path}), format!("{path}: undeleted")))
}

pub async fn destroy(context: &Context, path: String, versions: Vec<u64>, all: bool) -> Result<Answer, Failure> {
    let request = v1::KvDestroyRequest {
        path: path.clone(),
        versions,
        all,
        ..Default::default()
    };
    let client = context.client().await?;
    client
        .change(request, |s, r| async move { s.kv().destroy(r).await })
        .await?;
    Ok(Answer::said(json!({"path": path}), format!("{path}: destroyed")))
}

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
