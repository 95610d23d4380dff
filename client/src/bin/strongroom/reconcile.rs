//! `strongroom reconcile`: a target against its leases.

use crate::{
    context::Context,
    failure::Failure,
    mount::PATIENCE,
    output::{Answer, Human},
};
use clap::Args;
use serde_json::json;
use strongroom_client::v1;

/// See the module.
#[derive(Debug, Args)]
pub struct Reconcile {
    /// The mount
    path: String,
    /// Revoke strays
    #[arg(long)]
    remove: bool,
}

impl Reconcile {
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        let request = v1::MountReconcileRequest {
            path: self.path.clone(),
            remove: self.remove,
            ..Default::default()
        };
        let client = context.patient_client(PATIENCE).await?;
        let found = client
            .change(request, |s, r| async move { s.mount().reconcile(r).await })
            .await?;
        let mut text = format!(
            "{}: {} accounts with our mark, {} strays ({} being revoked), {} missing\n",
            self.path, found.accounts, found.stray_count, found.removing, found.missing_count
        );
        for (word, names) in [
            ("stray", &found.strays),
            ("foreign", &found.foreign),
            ("missing, lease", &found.missing),
        ] {
            for name in names {
                text.push_str(&format!("  {word} {name}\n"));
            }
        }
        let answer = json!({
            "path": self.path,
            "accounts": found.accounts,
            "strays": found.strays,
            "stray_count": found.stray_count,
            "removing": found.removing,
            "foreign": found.foreign,
            "missing": found.missing,
            "missing_count": found.missing_count,
        });
        Ok(Answer::new(answer, Human::Text(text)))
    }
}
