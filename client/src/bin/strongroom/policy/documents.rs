//! Where the policies come from that are tried: files, the daemon, or both.

use crate::{context::Context, failure::Failure, input};
use clap::Args;
use std::{collections::BTreeMap, path::PathBuf};
use strongroom_client::{Client, v1};
use strongroom_policy::PolicySet;

/// Files of one directory that are read.
const FILES_MAX: usize = 1024;

/// Documents by name, with their versions.
pub type Documents = BTreeMap<String, (u64, String)>;

/// A change that is only tried.
#[derive(Debug, Args)]
pub struct Change {
    /// Policies to put in place of, or beside, those there are: NAME.cedar, or a directory of such files
    #[arg(long = "policies", value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Policies to leave out
    #[arg(long = "delete", value_name = "NAME")]
    pub delete: Vec<String>,
}

impl Change {
    /// `documents` after the change.
    pub fn applied(&self, mut documents: Documents) -> Result<Documents, Failure> {
        for name in &self.delete {
            if documents.remove(name).is_none() {
                return Err(Failure::usage(
                    format!("there is no policy `{name}` to leave out"),
                    "`strongroom policy list` shows them",
                ));
            }
        }
        for path in &self.paths {
            for (name, text) in read(path)? {
                let version = documents.get(&name).map_or(0, |(version, _)| *version);
                documents.insert(name, (version + 1, text));
            }
        }
        Ok(documents)
    }
}

fn read(path: &PathBuf) -> Result<Vec<(String, String)>, Failure> {
    let files = if path.is_dir() {
        let broken = |error: std::io::Error| Failure::usage(format!("{}: {error}", path.display()), "name a directory");
        let mut files = Vec::new();
        for entry in std::fs::read_dir(path).map_err(broken)? {
            let file = entry.map_err(broken)?.path();
            if file.extension().is_some_and(|extension| extension == "cedar") {
                files.push(file);
            }
        }
        files.sort();
        files
    } else {
        vec![path.clone()]
    };
    if files.is_empty() || files.len() > FILES_MAX {
        return Err(Failure::usage(
            format!("{}: {} files that end with .cedar", path.display(), files.len()),
            format!("a directory has 1 to {FILES_MAX} of them; NAME.cedar is the policy NAME"),
        ));
    }
    let text = |file: PathBuf| {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok((name, input::file(&file)?.expose_str()?.to_owned()))
    };
    files.into_iter().map(text).collect()
}

/// The daemon's, all of them.
pub async fn stored(client: &Client) -> Result<Documents, Failure> {
    let mut documents = Documents::new();
    for name in super::names(client).await? {
        let request = v1::PolicyGetRequest { name };
        let got = client
            .read(request, |s, r| async move { s.policy().get(r).await })
            .await?;
        documents.insert(got.name, (got.version, got.text));
    }
    Ok(documents)
}

/// Checked and put together as the daemon does it.
pub fn set(context: &Context, documents: &Documents) -> Result<PolicySet, Failure> {
    let parts = documents.iter().map(|(name, (version, text))| (name, *version, text));
    if documents.is_empty() {
        context.out.notice("there are no policies: everything is refused");
    }
    PolicySet::build(parts).map_err(|error| {
        Failure::usage(
            error.to_string(),
            "correct the policy; `policy/schema.cedarschema` is the whole language",
        )
    })
}
