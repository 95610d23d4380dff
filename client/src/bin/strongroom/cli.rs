//! The words of the command line: global flags and the nouns.

#[cfg(unix)]
use crate::{agent, run};
use crate::{
    audit, auth, ci,
    context::Context,
    creds, doctor,
    failure::Failure,
    fetch, generate, group, identity, kv, lease, login, mount, operator,
    output::{Answer, Format},
    policy, reconcile, role, token, transit, trust, watch,
};
use clap::{Args, Parser, Subcommand};
use std::{path::PathBuf, time::Duration};

const ABOUT: &str = "Strongroom: secrets, leased credentials and the seal, from the command line.";
const AFTER: &str = "\
Settings come from flags, then the environment, then ~/.config/strongroom/config.toml
(keys: address, ca_cert, token_file, output, timeout), then the local socket.
The token comes from --token-file, then STRONGROOM_TOKEN, then `token_file` of the config file, then
~/.config/strongroom/token (mode 0600, written by `strongroom token save`).

Exit codes: 0 done, 1 other failure, 2 usage, 3 denied, 4 unavailable, 5 sealed.

Examples:
  strongroom operator status
  strongroom kv get kv/prod/db --field password
  strongroom creds issue pg/readers --ttl 15m --output json
  strongroom doctor";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "strongroom", version, about = ABOUT, after_help = AFTER, max_term_width = 100)]
#[command(arg_required_else_help = true, subcommand_required = true)]
pub struct Cli {
    /// Flags that every command takes.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// Where the daemon listens: https://HOST:8470 or unix:/path [default: unix:/run/strongroom/strongroom.sock]
    #[arg(
        long,
        global = true,
        env = "STRONGROOM_ADDR",
        value_name = "ADDRESS",
        hide_env_values = true
    )]
    pub address: Option<String>,
    /// PEM file of the CA that signed the daemon's certificate [default: the system's CAs]
    #[arg(
        long,
        global = true,
        env = "STRONGROOM_CACERT",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub ca_cert: Option<PathBuf>,
    /// PEM file of a certificate to show to the daemon over TLS, for tokens that are bound to it
    #[arg(
        long,
        global = true,
        env = "STRONGROOM_CLIENT_CERT",
        value_name = "FILE",
        hide_env_values = true,
        requires = "client_key"
    )]
    pub client_cert: Option<PathBuf>,
    /// PEM file of that certificate's key
    #[arg(
        long,
        global = true,
        env = "STRONGROOM_CLIENT_KEY",
        value_name = "FILE",
        hide_env_values = true,
        requires = "client_cert"
    )]
    pub client_key: Option<PathBuf>,
    /// PEM file of the key that the token is bound to (DPoP) [default: ~/.config/strongroom/token.key, with the token beside it]
    #[arg(
        long,
        global = true,
        env = "STRONGROOM_PROOF_KEY",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub proof_key: Option<PathBuf>,
    /// File that holds the token, `-` for stdin; a regular file must be mode 0600
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// How to print: `table` for people, `json` (one object on stdout) for programs [default: table]
    #[arg(long, short, global = true, value_name = "FORMAT", hide_possible_values = true)]
    pub output: Option<Format>,
    /// Longest time to wait for each answer, `30s`, `2m` [default: 15s; longer for slow work]
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The seal: init, unseal, seal, key slots, key rotation, recovery
    #[command(
        subcommand,
        after_help = "\
Examples:
  strongroom operator init --slot daily=hsm+quorum:3/5 --slot break-glass=quorum:4/7
  strongroom operator unseal --slot daily
  strongroom operator status"
    )]
    Operator(operator::Operator),
    /// Versioned secrets
    #[command(
        subcommand,
        after_help = "\
Examples:
  strongroom kv put kv/prod/db password
  strongroom kv get kv/prod/db --field password
  strongroom kv list kv/prod"
    )]
    Kv(kv::Kv),
    /// Encrypt, sign and authenticate with keys that stay in the vault
    #[command(
        subcommand,
        after_help = "\
Examples:
  strongroom mount enable transit --kind transit
  strongroom transit key create transit/orders --kind aes256-gcm
  printf %s \"$CARD\" | strongroom transit encrypt transit/orders"
    )]
    Transit(transit::Transit),
    /// Engines at paths, and their configuration
    #[command(
        subcommand,
        after_help = "\
Examples:
  strongroom mount enable pg --kind postgres
  strongroom mount list"
    )]
    Mount(mount::Mount),
    /// Compare the accounts in a mount's target with its leases
    ///
    /// Strays carry the mount's mark and have no lease; missing ones have a lease and are not there. The daemon compares by itself soon after
    /// unseal and every hour, and removes nothing then.
    #[command(after_help = "\
Examples:
  strongroom reconcile pg
  strongroom reconcile pg --remove")]
    Reconcile(reconcile::Reconcile),
    /// Roles of a mount: what kind of credential it makes
    #[command(
        subcommand,
        after_help = "\
Examples:
  strongroom role put pg/readers --from-json readers.json
  strongroom role list pg"
    )]
    Role(role::Role),
    /// Credentials in real systems
    #[command(
        subcommand,
        after_help = "\
Examples:
  strongroom creds issue pg/readers --ttl 15m
  strongroom creds rotate pg/app"
    )]
    Creds(creds::Creds),
    /// Leases: promises to revoke
    #[command(
        subcommand,
        after_help = "\
Examples:
  strongroom lease list pg
  strongroom lease revoke --prefix pg/readers"
    )]
    Lease(lease::Lease),
    /// API tokens
    #[command(
        subcommand,
        after_help = "\
Examples:
  strongroom token save
  strongroom token create --identity deployer --group ci --ttl 30m
  strongroom token show"
    )]
    Token(token::Token),
    /// Cedar policies
    #[command(
        subcommand,
        after_help = "\
Examples:
  strongroom policy put readers readers.cedar
  strongroom policy explain read kv/prod/db
  strongroom policy who-can read kv/prod/db"
    )]
    Policy(policy::Policy),
    /// Whom tokens speak for
    #[command(
        subcommand,
        after_help = "\
Examples:
  strongroom identity show
  strongroom identity put deployer --attribute team=payments"
    )]
    Identity(identity::Identity),
    /// Sets of identities
    #[command(
        subcommand,
        after_help = "\
Examples:
  strongroom group create payments alice bob
  strongroom group remove payments bob"
    )]
    Group(group::Group),
    /// Get a token for a proof of who you are, and keep it for the commands to come
    #[command(
        subcommand,
        after_help = "\
Examples:
  strongroom login oidc people
  strongroom login jwt - < token.jwt
  strongroom login role 1f3a5c7e9b1d4f6082a4c6e8f0b2d4e6 - < secret-id.txt"
    )]
    Login(login::Login),
    Logout(login::Logout),
    /// Which log-in methods there are, by which trusts, and how to log in with each
    #[command(
        subcommand,
        after_help = "\
Examples:
  strongroom auth list
  strongroom auth show people"
    )]
    Auth(auth::Auth),
    /// Whom log-ins believe
    #[command(
        subcommand,
        after_help = "\
Examples:
  strongroom trust put github github.json
  strongroom trust list"
    )]
    Trust(trust::Trust),
    /// What a pipeline's token can do
    #[command(
        subcommand,
        after_help = "\
Examples:
  strongroom ci explain - < token.jwt"
    )]
    Ci(ci::Ci),
    /// The append-only log
    #[command(
        subcommand,
        after_help = "\
Examples:
  strongroom audit tail --follow
  strongroom audit verify /backup/audit"
    )]
    Audit(audit::Audit),
    /// Get many secrets and credentials in one round trip, all or nothing
    Fetch(fetch::Fetch),
    /// Follow secrets, static roles and leases as they change
    Watch(watch::Watch),
    /// Run a command with secrets in its environment or in files, and take back at its end what was leased
    #[cfg(unix)]
    Run(run::Run),
    /// Hold secrets for the programs of this machine: a socket, and files that are kept fresh
    #[cfg(unix)]
    Agent(agent::Agent),
    /// Explain what is wrong: address, TLS, clock, seal, HSM, token
    Doctor(doctor::Doctor),
    /// Print a completion script for a shell
    Completion(generate::Completion),
    /// Print or write the manual pages
    Man(generate::Man),
}

impl Command {
    pub async fn run(self, context: &Context) -> Result<Answer, Failure> {
        match self {
            Self::Operator(command) => command.run(context).await,
            Self::Kv(command) => command.run(context).await,
            Self::Transit(command) => command.run(context).await,
            Self::Mount(command) => command.run(context).await,
            Self::Reconcile(command) => command.run(context).await,
            Self::Role(command) => command.run(context).await,
            Self::Creds(command) => command.run(context).await,
            Self::Lease(command) => command.run(context).await,
            Self::Token(command) => command.run(context).await,
            Self::Policy(command) => command.run(context).await,
            Self::Identity(command) => command.run(context).await,
            Self::Group(command) => command.run(context).await,
            Self::Login(command) => command.run(context).await,
            Self::Logout(command) => command.run(context).await,
            Self::Auth(command) => command.run(context).await,
            Self::Trust(command) => command.run(context).await,
            Self::Ci(command) => command.run(context).await,
            Self::Audit(command) => command.run(context).await,
            Self::Fetch(command) => command.run(context).await,
            Self::Watch(command) => command.run(context).await,
            #[cfg(unix)]
            Self::Run(command) => command.run(context).await,
            #[cfg(unix)]
            Self::Agent(command) => command.run(context).await,
            Self::Doctor(command) => command.run(context).await,
            Self::Completion(command) => command.run(),
            Self::Man(command) => command.run(),
        }
    }
}

/// `90s`, `15m`, `1h30m`; whole or part seconds, more than zero.
pub fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("must be more than zero".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}; write `30s`, `15m` or `1h`")),
    }
}

/// A duration in whole seconds for the wire, rounded up; absent is 0, the default.
pub fn secs(duration: Option<Duration>) -> u64 {
    duration.map_or(0, |d| d.as_secs() + u64::from(d.subsec_nanos() > 0))
}

/// `KEY=VALUE` of things that are no secrets (labels, attributes).
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Every command with everything below it.
    fn all(command: clap::Command, path: &str, seen: &mut Vec<(String, clap::Command)>) {
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            all(sub.clone(), &format!("{path} {}", sub.get_name()), seen);
        }
        seen.push((path.to_owned(), command));
    }

    /// The words of an example up to a redirection; the part of a pipe that is `strongroom`.
    fn words(line: &str) -> Option<Vec<String>> {
        let part = line
            .split('|')
            .map(str::trim)
            .find(|part| part.starts_with("strongroom "))?;
        let part = part.split(['<', '>']).next()?;
        Some(
            part.split_whitespace()
                .map(|word| word.trim_matches('\'').to_owned())
                .collect(),
        )
    }

    /// Every `--help` ends with examples, and every example is a command line that parses.
    #[test]
    fn every_command_has_examples_that_parse() {
        let mut commands = Vec::new();
        all(Cli::command(), "strongroom", &mut commands);
        assert!(commands.len() > 60, "the nouns and their verbs: {}", commands.len());
        for (path, command) in commands {
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let (_, examples) = after
                .split_once("Examples:\n")
                .unwrap_or_else(|| panic!("{path}: no examples"));
            let lines: Vec<_> = examples.lines().filter_map(words).collect();
            assert!(!lines.is_empty(), "{path}: empty examples");
            for line in lines {
                assert!(
                    Cli::try_parse_from(&line).is_ok(),
                    "{path}: {line:?}: {}",
                    Cli::try_parse_from(&line).unwrap_err()
                );
            }
        }
    }

    /// R-TOK-5 and the house rule: nothing takes a token, share or password as an argument's value.
    #[test]
    fn no_flag_takes_a_secret_value() {
        let mut commands = Vec::new();
        all(Cli::command(), "strongroom", &mut commands);
        for (path, command) in commands {
            for argument in command.get_arguments() {
                let name = argument.get_id().as_str();
                let harmless = [
                    "client_secret",
                    "token_file",
                    "share_files",
                    "root_secret",
                    "save_token",
                    "shares_dir",
                ];
                let secret = ["token", "share", "secret", "password", "pin"]
                    .iter()
                    .any(|word| name.contains(word));
                assert!(!secret || harmless.contains(&name), "{path}: --{name}");
            }
        }
        assert!(Cli::try_parse_from(["strongroom", "--token", "srm_at_x", "operator", "status"]).is_err());
    }

    #[test]
    fn durations_are_checked() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        for wrong in ["0s", "15", "", "-3s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!(secs(Some(Duration::from_millis(1500))), 2);
        assert_eq!(secs(None), 0);
    }
}
