//! What is known of each CI platform: which claims say who, which are immutable, which runs are a trap. Sources: the platforms'
//! documentation of their tokens; tests hold every line.

use super::{
    claims::{Claims, Scalar, Want},
    definition::Binding,
    jws::Algorithm,
};
use serde::{Deserialize, Serialize};

/// A platform that issues tokens to its jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Platform {
    /// GitHub Actions, GitHub Enterprise Server too.
    Github,
    /// GitLab CI/CD.
    Gitlab,
    /// CircleCI.
    Circleci,
    /// Jenkins with the plug-in oidc-provider.
    Jenkins,
    /// Service accounts of Kubernetes.
    Kubernetes,
    /// Buildkite.
    Buildkite,
    /// Any other issuer: the trust must bind `sub`.
    #[default]
    Generic,
    /// An OpenID provider of people. Not to be written down: it is that of a trust with `oidc`.
    #[serde(skip)]
    Person,
}

/// Claims that people give themselves, or that pass to somebody else with a name.
const NAMES: [&str; 8] = [
    "name",
    "nickname",
    "given_name",
    "family_name",
    "preferred_username",
    "upn",
    "unique_name",
    "profile",
];
/// Claims that say how somebody logged in, something of a claim, or what people write of themselves, and not who it is.
const MANNERS: [&str; 21] = [
    "acr",
    "address",
    "amr",
    "at_hash",
    "auth_time",
    "azp",
    "birthdate",
    "c_hash",
    "email_verified",
    "gender",
    "locale",
    "nonce",
    "phone_number",
    "phone_number_verified",
    "picture",
    "s_hash",
    "sid",
    "typ",
    "ver",
    "website",
    "zoneinfo",
];

/// Runs that may carry secrets without being named in a binding.
const GITHUB_EVENTS: [&str; 6] = [
    "push",
    "schedule",
    "workflow_dispatch",
    "release",
    "merge_group",
    "deployment",
];
/// They run with the rights of the base repository on what a stranger wrote, or on a stranger's say-so.
const GITHUB_NEVER: [&str; 4] = ["pull_request_target", "workflow_run", "issue_comment", "issues"];
/// A stranger's merge request.
const GITLAB_REQUESTS: [&str; 2] = ["merge_request_event", "external_pull_request_event"];

impl Platform {
    /// What its tokens are signed with.
    pub const fn algorithms(self) -> &'static [Algorithm] {
        match self {
            Self::Github | Self::Gitlab | Self::Circleci | Self::Jenkins | Self::Buildkite | Self::Person => {
                &[Algorithm::RS256]
            }
            Self::Kubernetes => &[Algorithm::RS256, Algorithm::ES256],
            Self::Generic => &[],
        }
    }

    /// Where an issuer of this kind publishes its keys.
    pub fn keys_url(self, issuer: &str) -> Option<String> {
        let issuer = issuer.trim_end_matches('/');
        match self {
            Self::Github => Some(format!("{issuer}/.well-known/jwks")),
            Self::Gitlab => Some(format!("{issuer}/oauth/discovery/keys")),
            Self::Circleci => Some(format!("{issuer}/.well-known/jwks-pub.json")),
            Self::Jenkins => Some(format!("{issuer}/jwks")),
            Self::Kubernetes => Some(format!("{issuer}/openid/v1/jwks")),
            Self::Buildkite => Some(format!("{issuer}/.well-known/jwks")),
            Self::Generic | Self::Person => None,
        }
    }

    /// Whether a token may be used once only. A Kubernetes pod has one token for an hour, and logs in with it again.
    pub const fn single_use(self) -> bool {
        !matches!(self, Self::Kubernetes)
    }

    /// Claims that policies see.
    pub const fn attributes(self) -> &'static [&'static str] {
        match self {
            Self::Github => &[
                "sub",
                "repository",
                "repository_id",
                "repository_owner_id",
                "repository_visibility",
                "ref",
                "ref_type",
                "environment",
                "event_name",
                "job_workflow_ref",
                "runner_environment",
                "actor_id",
                "run_id",
                "run_attempt",
                "sha",
            ],
            Self::Gitlab => &[
                "sub",
                "project_path",
                "project_id",
                "namespace_id",
                "ref",
                "ref_type",
                "ref_protected",
                "environment",
                "environment_protected",
                "pipeline_source",
                "pipeline_id",
                "job_id",
                "user_id",
                "sha",
            ],
            Self::Circleci => &[
                "sub",
                "oidc.circleci.com/project-id",
                "oidc.circleci.com/vcs-ref",
                "oidc.circleci.com/vcs-origin",
                "oidc.circleci.com/context-ids",
                "oidc.circleci.com/pipeline-id",
                "oidc.circleci.com/job-id",
            ],
            Self::Jenkins => &["sub", "build_number"],
            Self::Kubernetes => &[
                "sub",
                "kubernetes.io/namespace",
                "kubernetes.io/serviceaccount/name",
                "kubernetes.io/serviceaccount/uid",
                "kubernetes.io/pod/name",
                "kubernetes.io/pod/uid",
            ],
            Self::Buildkite => &[
                "sub",
                "organization_slug",
                "pipeline_slug",
                "organization_id",
                "pipeline_id",
                "build_branch",
                "build_number",
                "step_key",
                "job_id",
                "build_source",
            ],
            Self::Generic => &["sub"],
            Self::Person => &["sub", "acr", "amr"],
        }
    }

    /// A run that is never believed under this binding, in words.
    pub fn trap(self, claims: &Claims, binding: &Binding) -> Option<String> {
        match self {
            Self::Github => github_trap(claims, binding),
            Self::Gitlab => gitlab_trap(claims, binding),
            Self::Circleci => {
                // A person has a shell in a job that is run again with SSH.
                let rerun = claims.get("oidc.circleci.com/ssh-rerun");
                let harmless = rerun.is_none_or(|claim| claim.is(&Scalar::Bool(false)) || claim.is(&text("false")));
                (!harmless).then(|| "`oidc.circleci.com/ssh-rerun`: somebody has a shell in the job".to_owned())
            }
            Self::Buildkite => {
                let fork = claims.text("build_source") == Some("fork");
                fork.then(|| "`build_source` is `fork`".to_owned())
            }
            Self::Jenkins | Self::Kubernetes | Self::Generic | Self::Person => None,
        }
    }

    /// What makes a binding too wide, in words.
    pub fn too_wide(self, binding: &Binding) -> Vec<String> {
        let has = |name: &str| binding.claims.contains_key(name);
        let any = |names: &[&str]| names.iter().any(|name| has(name));
        let rules = match self {
            Self::Github => github_rules(binding),
            Self::Gitlab => vec![
                (
                    has("project_id"),
                    "bind `project_id`: paths can be taken over after a rename, and a namespace holds projects that do not exist yet",
                ),
                (
                    any(&["ref", "environment", "ref_protected", "environment_protected"]),
                    "bind `ref`, `environment` or `ref_protected` too: otherwise every branch may log in",
                ),
                (
                    !named(binding, "pipeline_source", &GITLAB_REQUESTS),
                    "`pipeline_source` names merge requests, which strangers open",
                ),
                (
                    booleans_are_text(binding),
                    "GitLab writes `ref_protected` and `environment_protected` as text: bind \"true\", not true",
                ),
            ],
            Self::Circleci => vec![
                (
                    has("oidc.circleci.com/project-id"),
                    "bind `oidc.circleci.com/project-id`: `sub` has other parts that change",
                ),
                (
                    any(&["oidc.circleci.com/vcs-ref", "oidc.circleci.com/context-ids"]),
                    "bind `oidc.circleci.com/vcs-ref` or `oidc.circleci.com/context-ids` too: otherwise every branch and fork may log in",
                ),
            ],
            Self::Jenkins => vec![(has("sub"), "bind `sub`, the job's URL")],
            Self::Kubernetes => vec![(
                has("kubernetes.io/serviceaccount/uid"),
                "bind `kubernetes.io/serviceaccount/uid`: a name can be made again by whoever may make service accounts",
            )],
            Self::Buildkite => vec![
                (
                    has("pipeline_id"),
                    "bind `pipeline_id` (request it with --claim pipeline_id): slugs can be taken over after a rename",
                ),
                (
                    any(&["build_branch", "step_key"]),
                    "bind `build_branch` too: otherwise every branch may log in",
                ),
            ],
            Self::Person => person_rules(binding),
            Self::Generic => vec![(has("sub"), "bind `sub`: nothing else is known to say who it is")],
        };
        let broken = rules.into_iter().filter(|(holds, _)| !holds);
        broken.map(|(_, reason)| reason.to_owned()).collect()
    }
}

/// What must hold of a binding to GitHub's claims, and what to do when it does not.
fn github_rules(binding: &Binding) -> Vec<(bool, &'static str)> {
    let has = |name: &str| binding.claims.contains_key(name);
    let harmless = |value: &Scalar| *value == text("private") || *value == text("internal");
    let visibility = binding.claims.get("repository_visibility").map(Want::values);
    let private = visibility.is_some_and(|values| values.iter().all(harmless));
    vec![
        (
            has("repository_id"),
            "bind `repository_id`: names of repositories and owners can be taken over after a rename, and `sub` has names",
        ),
        (
            ["environment", "ref", "job_workflow_ref"].into_iter().any(has),
            "bind `environment`, `ref` or `job_workflow_ref` too: otherwise every branch and every workflow of the repository may log in",
        ),
        (
            !named(binding, "event_name", &GITHUB_NEVER),
            "`event_name` names a run that works on what strangers wrote with the repository's own rights",
        ),
        (
            !named(binding, "event_name", &["pull_request"]) || private,
            "`pull_request` of a repository that may be public: bind `repository_visibility` to `private` or `internal` too",
        ),
        (
            pinned(binding.claims.get("job_workflow_ref")),
            "`job_workflow_ref` must end in `@` and a full commit hash or `refs/...`",
        ),
    ]
}

/// What must hold of a binding to a person's claims (OpenID Connect Core 1.0, 5.7: only `sub` is stable and unique).
fn person_rules(binding: &Binding) -> Vec<(bool, &'static str)> {
    let has = |name: &str| binding.claims.contains_key(name);
    let verified = binding.claims.get("email_verified").map(Want::values);
    let says_who = |name: &String| !MANNERS.contains(&name.split('/').next().unwrap_or_default());
    vec![
        (
            binding.claims.keys().any(says_who),
            "bind `sub`, or a claim that your provider alone gives (a group, a role): otherwise everybody there may log in",
        ),
        (
            !NAMES.into_iter().any(has),
            "a name can be changed by whoever has it, and given to somebody else: bind `sub`, a group, or a verified `email`",
        ),
        (
            !has("email") || verified == Some(&[Scalar::Bool(true)]),
            "bind `email_verified` to true beside `email`: providers hand out addresses that nobody has looked at",
        ),
    ]
}

fn text(value: &str) -> Scalar {
    Scalar::Text(value.to_owned())
}

/// Whether the binding names one of these values itself.
fn named(binding: &Binding, claim: &str, values: &[&str]) -> bool {
    let wanted = binding.claims.get(claim).map(Want::values).unwrap_or_default();
    wanted
        .iter()
        .any(|want| values.iter().any(|value| want == &text(value)))
}

fn github_trap(claims: &Claims, binding: &Binding) -> Option<String> {
    let event = claims.text("event_name").unwrap_or_default();
    if GITHUB_NEVER.contains(&event) {
        return Some(format!(
            "`event_name` is `{event}`: it runs with the repository's own rights on what strangers wrote"
        ));
    }
    if GITHUB_EVENTS.contains(&event) || named(binding, "event_name", &[event]) {
        return None;
    }
    Some("`event_name` is none that carries secrets unless a binding names it".to_owned())
}

fn gitlab_trap(claims: &Claims, binding: &Binding) -> Option<String> {
    let source = claims.text("pipeline_source").unwrap_or_default();
    if GITLAB_REQUESTS.contains(&source) {
        return Some(format!(
            "`pipeline_source` is `{source}`: strangers open merge requests"
        ));
    }
    let protected = binding.claims.contains_key("ref_protected") || claims.is("ref_protected", &text("true"));
    (!protected).then(|| "`ref_protected` is not \"true\", and the binding does not say that it need not be".to_owned())
}

/// A reusable workflow is trusted at a commit or a full ref, never at whatever is behind a short name.
fn pinned(want: Option<&Want>) -> bool {
    want.is_none_or(|want| {
        want.values().iter().all(|value| {
            let full = |at: &str| {
                at.starts_with("refs/") || (at.len() == 40 && at.bytes().all(|byte| byte.is_ascii_hexdigit()))
            };
            matches!(value, Scalar::Text(text) if text.rsplit_once('@').is_some_and(|(_, at)| full(at)))
        })
    })
}

fn booleans_are_text(binding: &Binding) -> bool {
    ["ref_protected", "environment_protected"].iter().all(|claim| {
        let wanted = binding.claims.get(*claim).map(Want::values).unwrap_or_default();
        wanted.iter().all(|value| matches!(value, Scalar::Text(_)))
    })
}
