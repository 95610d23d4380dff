//! Keys that encrypt and sign for callers. Records say how many items there were and how many failed, never what was in them.

use super::prelude::*;
use crate::{
    mount::{Kind, Place},
    store::Cursor,
    transit::{self, KeyKind, KeyShown, Made, Text, ToVerify},
};
use bytes::Bytes;
use zeroize::Zeroizing;

/// One answer for each item, in order.
pub type Each<T> = Vec<Result<T, Failure>>;

fn place(rooms: &Open, path: &Path) -> Result<Place, Failure> {
    Ok(rooms.mounts.resolve(path)?.of_kind(Kind::Transit)?)
}

/// Notes how many failed; each of these is told on its own.
fn told<T>(trail: &mut Trail, each: Vec<Result<T, transit::TransitError>>) -> Each<T> {
    let failed = each.iter().filter(|item| item.is_err()).count();
    trail.param_u64("failed", failed as u64);
    each.into_iter().map(|item| item.map_err(Failure::from)).collect()
}

fn note_versions(trail: &mut Trail, made: &[Result<Made, transit::TransitError>]) {
    if let Some(Ok(made)) = made.iter().find(|item| item.is_ok()) {
        trail.param_u64("version", made.version.into());
    }
}

macro_rules! changes {
    ($($(#[$doc:meta])* $op:ident = $name:literal, $action:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* }
        -> $reply:ty, |$rooms:ident, $permit:ident, $at:ident, $this:ident, $trail:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        pub struct $op {
            /// The key.
            pub path: Path,
            $($(#[$field_doc])* pub $field: $kind,)*
        }
        impl Operation for $op {
            type Reply = $reply;
            const NAME: &'static str = $name;
            const CLASS: Class = Class::Change;
            fn remember(reply: &$reply) -> Option<$reply> {
                Some(*reply)
            }
            fn describe(&self, _: &mut Trail) {}
            async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
                Ok(Target::new(Action::$action, self.path.clone()))
            }
            async fn handle(&self, $rooms: &Open, $permit: &Permit, $trail: &mut Trail) -> Result<Effect<$reply>, Failure> {
                let ($this, $at) = (self, place($rooms, &self.path)?);
                let (change, reply) = $body;
                Ok(Effect::Change(change, reply))
            }
        }
    )*};
}

changes! {
    /// Makes a key.
    CreateKey = "transit.create-key", Write {
        /// What it is for.
        kind: KeyKind,
        /// The HSM that its private halves never leave.
        hsm: Option<String>,
    } -> (), |rooms, permit, at, this, trail| {
        trail.param_word("kind", this.kind.as_str());
        trail.param_bool("hsm", this.hsm.is_some());
        let making = match &this.hsm {
            None => None,
            Some(hsm) => {
                let (making, intent) = rooms.transit.intend_key(permit, &at, this.kind, hsm).await?;
                rooms.commit(intent, vec![trail.request()]).await?;
                Some(making)
            }
        };
        (rooms.transit.create(permit, &at, this.kind, making).await?, ())
    };
    /// Adds a version.
    RotateKey = "transit.rotate-key", Rotate {} -> u32, |rooms, permit, at, _this, trail| {
        let making = match rooms.transit.intend_version(permit, &at).await? {
            None => None,
            Some((making, intent)) => {
                rooms.commit(intent, vec![trail.request()]).await?;
                Some(making)
            }
        };
        let (change, version) = rooms.transit.rotate(permit, &at, making).await?;
        trail.param_u64("version", version.into());
        (change, version)
    };
    /// Sets what may be done with it.
    ConfigureKey = "transit.configure-key", Write {
        /// The least version in use.
        least: Option<u32>,
        /// Whether it may be deleted.
        deletable: Option<bool>,
    } -> (), |rooms, permit, at, this, trail| {
        if let Some(least) = this.least {
            trail.param_u64("min_version", least.into());
        }
        if let Some(deletable) = this.deletable {
            trail.param_bool("deletion_allowed", deletable);
        }
        (rooms.transit.configure(permit, &at, this.least, this.deletable).await?, ())
    };
    /// Erases old versions.
    TrimKey = "transit.trim-key", Destroy {
        /// The oldest that stays.
        oldest: u32,
    } -> (), |rooms, permit, at, this, trail| {
        trail.param_u64("oldest_version", this.oldest.into());
        (rooms.transit.trim(permit, &at, this.oldest).await?, ())
    };
    /// Erases it.
    DeleteKey = "transit.delete-key", Destroy {} -> (), |rooms, permit, at, _this, _trail| {
        (rooms.transit.delete(permit, &at).await?, ())
    };
}

macro_rules! uses {
    ($($(#[$doc:meta])* $op:ident = $name:literal, $action:ident, $items:ident: $item:ty
        => $reply:ty, |$rooms:ident, $permit:ident, $at:ident, $this:ident, $trail:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        pub struct $op {
            /// The key.
            pub path: Path,
            /// What is to be done to each of which.
            pub $items: Vec<$item>,
        }
        impl Operation for $op {
            type Reply = Each<$reply>;
            const NAME: &'static str = $name;
            const CLASS: Class = Class::Read;
            fn describe(&self, trail: &mut Trail) {
                trail.param_u64("items", self.$items.len() as u64);
            }
            async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
                Ok(Target::new(Action::$action, self.path.clone()))
            }
            async fn handle(&self, $rooms: &Open, $permit: &Permit, $trail: &mut Trail) -> Result<Effect<Self::Reply>, Failure> {
                let ($this, $at) = (self, place($rooms, &self.path)?);
                let each = $body;
                Ok(Effect::Answer(told($trail, each)))
            }
        }
    )*};
}

uses! {
    /// Encrypts.
    Encrypt = "transit.encrypt", Encrypt, items: Text => Made, |rooms, permit, at, this, trail| {
        let each = rooms.transit.encrypt(permit, &at, &this.items).await?;
        note_versions(trail, &each);
        each
    };
    /// Decrypts.
    Decrypt = "transit.decrypt", Decrypt, items: Text => Zeroizing<Vec<u8>>, |rooms, permit, at, this, trail| {
        rooms.transit.decrypt(permit, &at, &this.items).await?
    };
    /// Encrypts anew.
    Rewrap = "transit.rewrap", Rewrap, items: Text => Made, |rooms, permit, at, this, trail| {
        let each = rooms.transit.rewrap(permit, &at, &this.items).await?;
        note_versions(trail, &each);
        each
    };
    /// Signs.
    Sign = "transit.sign", Sign, inputs: Bytes => Made, |rooms, permit, at, this, trail| {
        let each = rooms.transit.sign(permit, &at, this.inputs.clone()).await?;
        note_versions(trail, &each);
        each
    };
    /// Authenticates.
    Hmac = "transit.hmac", Sign, inputs: Bytes => Made, |rooms, permit, at, this, trail| {
        let each = rooms.transit.hmac(permit, &at, this.inputs.clone()).await?;
        note_versions(trail, &each);
        each
    };
    /// Verifies.
    Verify = "transit.verify", Verify, items: ToVerify => bool, |rooms, permit, at, this, trail| {
        let each = rooms.transit.verify(permit, &at, this.items.clone()).await?;
        let invalid = each.iter().filter(|item| matches!(item, Ok(false))).count();
        trail.param_u64("invalid", invalid as u64);
        each
    };
}

/// Makes a data key.
pub struct DataKey {
    /// The key that wraps it.
    pub path: Path,
    /// How long it is.
    pub length: usize,
    /// What the wrapped one is bound to.
    pub context: Bytes,
    /// Only the wrapped one.
    pub wrapped_only: bool,
}

impl Operation for DataKey {
    type Reply = transit::DataKey;
    const NAME: &'static str = "transit.data-key";
    const CLASS: Class = Class::Read;
    fn describe(&self, trail: &mut Trail) {
        trail.param_bool("wrapped_only", self.wrapped_only);
    }
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::Encrypt, self.path.clone()))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, trail: &mut Trail) -> Result<Effect<Self::Reply>, Failure> {
        let at = place(rooms, &self.path)?;
        let made = rooms
            .transit
            .data_key(permit, &at, self.length, &self.context, self.wrapped_only)
            .await?;
        trail.param_u64("version", made.wrapped.version.into());
        Ok(Effect::Answer(made))
    }
}

/// Shows a key.
pub struct GetKey {
    /// The key.
    pub path: Path,
}

impl Operation for GetKey {
    type Reply = KeyShown;
    const NAME: &'static str = "transit.get-key";
    const CLASS: Class = Class::Read;
    fn describe(&self, _: &mut Trail) {}
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::Metadata, self.path.clone()))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, _: &mut Trail) -> Result<Effect<KeyShown>, Failure> {
        Ok(Effect::Answer(
            rooms.transit.show(permit, &place(rooms, &self.path)?).await?,
        ))
    }
}

/// Lists a mount's keys that the caller may look at.
pub struct ListKeys {
    /// The mount.
    pub mount: Path,
    /// The token of the page before.
    pub after: Option<Vec<u8>>,
    /// At most this many are looked at.
    pub limit: usize,
}

impl Operation for ListKeys {
    type Reply = (Vec<String>, Option<Vec<u8>>);
    const NAME: &'static str = "transit.list-keys";
    const CLASS: Class = Class::Read;
    fn describe(&self, _: &mut Trail) {}
    async fn target(&self, _: &Open, _: &Caller) -> Result<Target, Failure> {
        Ok(Target::new(Action::List, self.mount.clone()))
    }
    async fn handle(&self, rooms: &Open, permit: &Permit, trail: &mut Trail) -> Result<Effect<Self::Reply>, Failure> {
        let at = place(rooms, &self.mount)?;
        let question = [Self::NAME, self.mount.as_str()];
        let after = rooms.page_start(permit, question, self.after.as_deref())?;
        let after = after.as_deref().map(Cursor::from_bytes);
        let page = rooms.transit.list(permit, &at, after.as_ref(), self.limit).await?;
        let seen = |name: &String| {
            let path = Path::parse(name).and_then(|name| self.mount.join(&name));
            path.is_ok_and(|path| permit.also(Action::List, &path))
        };
        let names: Vec<_> = page.children.into_iter().map(|child| child.name).filter(seen).collect();
        trail.param_u64("entries", names.len() as u64);
        let next = page
            .next
            .map(|next| rooms.page_token(permit, question, &next.to_bytes()));
        Ok(Effect::Answer((names, next)))
    }
}
