//! Who asks, for what, and under which circumstances, as typed values and as Cedar sees them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use cedar_policy::{Entities, Entity, EntityUid, RestrictedExpression as Value};

use crate::error::PrincipalError;
use crate::limits::{ATTRIBUTES_MAX, GROUPS_MAX, NAME_BYTES_MAX, VALUE_BYTES_MAX};
use crate::words::{Action, LANGUAGE, ROOT, uid};

/// An identity as policies see it, with its Cedar entity made once: keep it beside the token.
#[derive(Clone, Debug)]
pub struct Principal {
    id: String,
    name: String,
    groups: BTreeSet<String>,
    attributes: BTreeMap<String, String>,
    /// The Cedar entity of the principal, alone.
    entities: Entities,
    pub(crate) uid: EntityUid,
    pub(crate) parents: HashSet<EntityUid>,
}

impl Principal {
    /// `id` is the stable 128-bit id of the identity; policies write it as 32 lower-case hex digits.
    /// Names, groups and attributes are data, whatever characters they have: no text is ever parsed.
    /// # Errors
    /// A bound of [`limits`](crate::limits) is broken.
    pub fn new(
        id: [u8; 16],
        name: &str,
        groups: BTreeSet<String>,
        attributes: BTreeMap<String, String>,
    ) -> Result<Self, PrincipalError> {
        let named = |s: &str| (1..=NAME_BYTES_MAX).contains(&s.len());
        if groups.len() > GROUPS_MAX {
            return Err(PrincipalError::Groups);
        }
        if attributes.len() > ATTRIBUTES_MAX {
            return Err(PrincipalError::Attributes);
        }
        if !named(name) || !groups.iter().chain(attributes.keys()).all(|s| named(s)) {
            return Err(PrincipalError::Name);
        }
        if attributes.values().any(|value| value.len() > VALUE_BYTES_MAX) {
            return Err(PrincipalError::Value);
        }
        let id = id.iter().fold(String::with_capacity(32), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        let uid = uid(&LANGUAGE.identity, &id);
        let parents: HashSet<EntityUid> = groups
            .iter()
            .map(|group| crate::words::uid(&LANGUAGE.group, group))
            .collect();
        let text = |s: &String| Value::new_string(s.clone());
        let entity = Entity::new_with_tags(
            uid.clone(),
            [("name".to_owned(), Value::new_string(name.to_owned()))],
            parents.iter().cloned(),
            attributes.iter().map(|(key, value)| (key.clone(), text(value))),
        )
        .map_err(|_| PrincipalError::Entity)?;
        let entities = Entities::from_entities([entity], None).map_err(|_| PrincipalError::Entity)?;
        Ok(Principal {
            id,
            name: name.to_owned(),
            groups,
            attributes,
            entities,
            uid,
            parents,
        })
    }

    /// The id in 32 lower-case hex digits.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The name, which may be given to another identity one day; the id never is.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The groups it is in.
    #[must_use]
    pub fn groups(&self) -> &BTreeSet<String> {
        &self.groups
    }

    /// Its attributes, tags in policies.
    #[must_use]
    pub fn attributes(&self) -> &BTreeMap<String, String> {
        &self.attributes
    }
}

/// Where a call came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The daemon's Unix socket. `context.ip` is then 0.0.0.0: an `unless` that lists networks
    /// refuses it, and no network of a peer contains it.
    Unix,
    /// TLS from this address. An IPv4-mapped IPv6 address counts as the IPv4 address it is.
    Tls(IpAddr),
}

/// What a token was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Everyday use.
    Session,
    /// The token that `init` prints.
    Setup,
    /// The token of `operator recover`.
    Recover,
}

impl Purpose {
    /// The word in policies.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Purpose::Session => "session",
            Purpose::Setup => "setup",
            Purpose::Recover => "recover",
        }
    }
}

/// The key that the bearer of a token proves to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// None: whoever has the token has all there is.
    None,
    /// That of a client certificate.
    Certificate,
    /// That of DPoP proofs.
    Key,
}

impl Binding {
    /// The word in policies.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Binding::None => "none",
            Binding::Certificate => "certificate",
            Binding::Key => "key",
        }
    }
}

/// The circumstances of a call: `context` in policies. Nothing in it is optional.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The lease or token acted upon belongs to the caller. False where nothing is owned.
    pub own: bool,
    /// Where the call came from.
    pub peer: Peer,
    /// The time of the decision, in seconds since 1970 UTC. Beyond the year 9999 all is refused.
    pub now_unix_secs: i64,
    /// What the caller's token was made for.
    pub purpose: Purpose,
    /// Since the caller's token was made, in seconds.
    pub token_age_secs: u64,
    /// The key that the caller proves to hold.
    pub binding: Binding,
    /// 1 to 3, as the schema says.
    pub strength: u8,
}

/// The name of an attribute, and how its value is made.
type Attribute = (&'static str, fn(&Context) -> Value);

/// The attributes of `context` in policies. Some cost microseconds, so only those that a condition can
/// look at are made for it.
const ATTRIBUTES: [Attribute; 11] = [
    ("own", |c| Value::new_bool(c.own)),
    ("transport", |c| {
        let transport = match c.peer {
            Peer::Unix => &LANGUAGE.unix,
            Peer::Tls(_) => &LANGUAGE.tls,
        };
        Value::new_entity_uid(transport.clone())
    }),
    ("ip", |c| {
        let ip = match c.peer {
            Peer::Unix => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Peer::Tls(ip) => ip.to_canonical(),
        };
        Value::new_ip(ip.to_string())
    }),
    // A time beyond what can be written becomes text that is none, and the context fails.
    ("now", |c| {
        let now = jiff::Timestamp::from_second(c.now_unix_secs).map(|now| now.to_string());
        Value::new_datetime(now.unwrap_or_default())
    }),
    ("hour_utc", |c| {
        Value::new_long(c.now_unix_secs.div_euclid(3_600).rem_euclid(24))
    }),
    ("minute_utc", |c| {
        Value::new_long(c.now_unix_secs.div_euclid(60).rem_euclid(60))
    }),
    // The first of January 1970 was a Thursday, the fourth day.
    ("weekday_utc", |c| {
        Value::new_long((c.now_unix_secs.div_euclid(86_400) + 3).rem_euclid(7) + 1)
    }),
    ("token_purpose", |c| {
        Value::new_entity_uid(LANGUAGE.purpose(c.purpose.as_str()))
    }),
    ("token_age_secs", |c| {
        Value::new_long(i64::try_from(c.token_age_secs).unwrap_or(i64::MAX))
    }),
    ("token_binding", |c| {
        Value::new_entity_uid(LANGUAGE.binding(c.binding.as_str()))
    }),
    ("auth_strength", |c| Value::new_long(c.strength.into())),
];

/// The bit of needs for the entities of action and resource; below it, one for each attribute.
const HIERARCHY: u16 = 1 << ATTRIBUTES.len();

/// Whether a condition with these needs looks at the circumstances of a call.
pub(crate) const fn looks_at_the_call(needs: u16) -> bool {
    needs & (HIERARCHY - 1) != 0
}

/// What a condition, printed by Cedar, can look at: whatever it has the word of. That is more than it
/// looks at, never less, because an attribute cannot be had without its name, and Cedar prints names
/// without escapes (`sliced` compares with policies that had some).
pub(crate) fn needs_of(clause: &str) -> u16 {
    let words = clause.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.fold(0, |needs, word| {
        match ATTRIBUTES.iter().position(|(name, _)| *name == word) {
            Some(attribute) => needs | 1 << attribute,
            None if matches!(word, "action" | "resource") => needs | HIERARCHY,
            None => needs,
        }
    })
}

impl Context {
    /// As Cedar's context, with the attributes in `needs`; `None` when the clock is asked for and is
    /// beyond what Cedar can express.
    fn express(self, needs: u16) -> Option<cedar_policy::Context> {
        let needed = ATTRIBUTES.iter().enumerate().filter(|(i, _)| needs & (1 << i) != 0);
        let pairs = needed.map(|(_, (name, value))| ((*name).to_owned(), value(&self)));
        cedar_policy::Context::from_pairs(pairs).ok()
    }
}

/// One question: may `principal` do `action` at `path` now?
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who asks.
    pub principal: &'a Principal,
    /// What for.
    pub action: Action,
    /// A canonical path, or [`ROOT`]. One that is not canonical is refused.
    pub path: &'a str,
    /// The circumstances.
    pub context: &'a Context,
}

impl Request<'_> {
    /// The path's ancestors and the path itself: `/`, `kv`, `kv/prod`, `kv/prod/db`.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = &str> {
        let path = if self.path == ROOT { "" } else { self.path };
        let cuts = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        let below = cuts.filter(|at| *at > 0).filter_map(|at| path.get(..at));
        std::iter::once(ROOT).chain(below)
    }

    /// As Cedar sees it, with all that `needs` names. Only the caller, the action and the resource are
    /// entities: policies are checked to look no further (level 1 of Cedar's RFC 76).
    pub(crate) fn express(&self, needs: u16) -> Option<(cedar_policy::Request, Cow<'_, Entities>)> {
        let resource = uid(&LANGUAGE.path, self.path);
        let alone = &self.principal.entities;
        let entities = match needs & HIERARCHY {
            0 => Cow::Borrowed(alone),
            _ => {
                let ancestors = self.prefixes().filter(|prefix| *prefix != self.path);
                let ancestors = ancestors.map(|prefix| uid(&LANGUAGE.path, prefix)).collect();
                let added = [
                    self.action.entity()?.clone(),
                    Entity::new_no_attrs(resource.clone(), ancestors),
                ];
                Cow::Owned(alone.clone().add_entities(added, None).ok()?)
            }
        };
        let (principal, action) = (self.principal.uid.clone(), self.action.entity()?.uid());
        let context = self.context.express(needs)?;
        // No schema here: a test shows that what is made above conforms to it.
        let request = cedar_policy::Request::new(principal, action, resource, context, None).ok()?;
        Some((request, entities))
    }
}
