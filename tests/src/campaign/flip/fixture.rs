//! The whole store that is damaged: every kind of record, made by the rooms that own them, in two forms: all in the engine's journal, and
//! mostly in its table files. With it, everything that should be read back.

use super::rooms::Rooms;
use crate::campaign::{
    Dice, Tried, doing,
    power::load::{causes, root},
    trail::Notary,
};
use data_encoding::HEXLOWER;
use std::{collections::BTreeSet, fs, path::Path, sync::Arc};
use strongroomd::{
    audit,
    base::{
        random::OsRandom,
        time::{Clock, SystemClock, Timestamp},
    },
    kv::Fields,
    mount::Kind,
    policy::{Action, Caller, PolicyRoom},
    store::{Algorithm, Change, Disk, DiskConfig, EngineKind, Namespace, OwnedPart, Part, RawTable, Store, Table},
    token::{Ceremony, NewToken, TokenRoom},
};
use zeroize::Zeroizing;

/// Where nobody may read.
pub const FORBIDDEN: &str = "kv/payroll/salaries";
pub const FORBID: &str = "forbid (principal, action, resource in S::Path::\"kv/payroll\");";
const PERMIT: &str = "permit (principal, action == S::Action::\"read\", resource in S::Path::\"kv\");";
/// Tables that the rooms above do not fill.
const FILLED: [Table; 18] = [
    Table::Accessor,
    Table::Token,
    Table::Role,
    Table::EngineConfig,
    Table::Lease,
    Table::LeaseDue,
    Table::LeaseByRole,
    Table::LeaseByIdentity,
    Table::LeaseBySession,
    Table::LeaseRevoking,
    Table::StaticAccount,
    Table::Rotation,
    Table::System,
    Table::Trust,
    Table::RoleSecret,
    Table::TransitKey,
    Table::TransitVersion,
    Table::TransitObject,
];

/// A record: its table's id, its key in words, its value.
pub type Row = (u8, String, Vec<u8>);

/// What should be read back.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    pub rows: BTreeSet<Row>,
    /// A set-up token, which may do everything but what a policy forbids; a token of an identity, which may do what a policy permits.
    pub tokens: Vec<String>,
    /// Secrets: path, value of the field `value`.
    pub secrets: Vec<(String, Vec<u8>)>,
    pub audit_records: u64,
    pub now: u64,
    /// The root key.
    pub root: [u8; 32],
}

pub fn config(dir: &Path) -> DiskConfig {
    let audit = audit::Settings {
        dir: dir.join("audit"),
        segment_bytes: audit::SEGMENT_BYTES_MIN,
    };
    DiskConfig {
        caches: strongroomd::store::Caches::default(),
        evidence: strongroomd::store::Evidence::default(),
        dir: dir.join("store"),
        engine: EngineKind::Fjall,
        reserve_bytes: 0,
        audit,
    }
}

/// Where the engine's files lie.
pub fn engine_dir(dir: &Path) -> std::path::PathBuf {
    dir.join("store").join("engine")
}

pub fn open(dir: &Path) -> Tried<Disk> {
    Disk::open(&config(dir), Arc::new(OsRandom))
        .map(|(disk, _)| disk)
        .map_err(|error| causes(&error).into())
}

struct Maker {
    store: Arc<Store>,
    notary: Notary,
    dice: Dice,
    made: u64,
    expected: Expected,
}

impl Maker {
    async fn commit(&mut self, change: Change) -> Tried<()> {
        self.made += 1;
        let records = vec![self.notary.note("campaign.make", 0, self.made)];
        self.store
            .commit(change, records)
            .await
            .map(drop)
            .map_err(|error| causes(&error).into())
    }

    async fn secret(&mut self, rooms: &Rooms, caller: &Arc<Caller>, path: &str, bytes: usize) -> Tried<()> {
        let permit = rooms
            .ask(caller, Action::Write, path)?
            .ok_or("the maker may not write")?;
        let place = rooms.mount.resolve(permit.path()).map_err(doing("the mount"))?;
        let value = self.dice.bytes(bytes);
        let fields = Fields::new([("value", &value[..])]).map_err(doing("fields"))?;
        let (change, _) = rooms
            .kv
            .put(&permit, &place, fields, None)
            .await
            .map_err(doing("kv put"))?;
        self.commit(change).await?;
        self.expected.secrets.retain(|(known, _)| known != path);
        self.expected.secrets.push((path.into(), value));
        Ok(())
    }

    async fn policy(&mut self, rooms: &Rooms, caller: &Arc<Caller>, name: &str, text: &str) -> Tried<()> {
        let path = PolicyRoom::path_of(name).map_err(doing("policy"))?;
        let permit = rooms
            .ask(caller, Action::PolicyWrite, path.as_str())?
            .ok_or("the maker may not write policies")?;
        let (change, _) = rooms
            .policy
            .put(&permit, name, text, None)
            .await
            .map_err(|error| causes(&error))?;
        self.commit(change).await
    }

    /// Set-up token, mount, secrets, an identity with a token, policies.
    async fn rooms(&mut self) -> Tried<()> {
        let now = SystemClock::default().now();
        self.expected.now = now.0;
        self.commit(PolicyRoom::found(&self.store).map_err(doing("policies"))?)
            .await?;
        let rooms = Rooms::load(&self.store, now).await?;
        let (change, setup) = rooms.token.mint(Ceremony::Setup).await.map_err(doing("token"))?;
        self.commit(change).await?;
        self.expected.tokens.push(setup.text.expose().to_owned());
        let caller = rooms
            .token
            .identify(setup.text.expose())
            .map_err(|_| "the set-up token is nobody's")?;
        let permit = rooms
            .ask(&caller, Action::MountWrite, "kv")?
            .ok_or("the maker may not mount")?;
        let (change, _) = rooms
            .mount
            .enable(&permit, Kind::Kv, "secrets")
            .await
            .map_err(doing("mount"))?;
        self.commit(change).await?;
        for (path, bytes) in [
            ("kv/app/db", 40),
            ("kv/app/db", 30),
            ("kv/app/tls/cert", 5000),
            (FORBIDDEN, 60),
        ] {
            self.secret(&rooms, &caller, path, bytes).await?;
        }
        let path = TokenRoom::path_of("ci").map_err(doing("identity"))?;
        let permit = rooms
            .ask(&caller, Action::TokenCreate, path.as_str())?
            .ok_or("the maker may not make tokens")?;
        let ask = NewToken {
            identity: Some("ci".into()),
            ttl_secs: 3600,
            ..NewToken::default()
        };
        let (change, token) = rooms.token.create(&permit, &ask).await.map_err(doing("token"))?;
        self.commit(change).await?;
        self.expected.tokens.push(token.text.expose().to_owned());
        self.policy(&rooms, &caller, "readers", PERMIT).await?;
        self.policy(&rooms, &caller, "payroll", FORBID).await
    }

    /// Records of the other tables, and of those outside the barrier.
    async fn others(&mut self) -> Tried<()> {
        for table in FILLED {
            let (view, id, value) = (
                self.store.view(Namespace::ROOT, table),
                [table.id(); 16],
                self.dice.bytes(50),
            );
            let mut change = Change::new();
            change.put(&view, &[Part::Raw(&id), Part::Name("one")], Zeroizing::new(value));
            self.commit(change).await?;
        }
        let mut change = Change::new();
        change
            .put_raw(RawTable::Slots, b"campaign", self.dice.bytes(80))
            .put_raw(RawTable::Fence, b"campaign", self.dice.bytes(16));
        self.commit(change).await
    }
}

/// Makes the first form in `dir`.
pub async fn make(dir: &Path, dice: Dice) -> Tried<Expected> {
    fs::create_dir_all(dir)?;
    let disk = open(dir)?;
    let change = disk.new_keyring(&root()?, Algorithm::default())?;
    let notary = Notary::new();
    disk.raw()
        .commit(change, vec![notary.note("campaign.make", 0, 0)])
        .await
        .map_err(|error| causes(&error))?;
    let store = disk.unlock(&root()?).await.map_err(|error| causes(&error))?;
    let mut maker = Maker {
        store,
        notary,
        dice,
        made: 0,
        expected: Expected::default(),
    };
    maker.others().await?;
    maker.rooms().await?;
    let Maker {
        store,
        made,
        mut expected,
        ..
    } = maker;
    expected.audit_records = made + 1;
    expected.root = *root()?.expose();
    expected.rows = rows(&store).await?.0;
    drop(store);
    disk.close();
    Ok(expected)
}

/// Moves what is in the engine's journal into its table files, then writes a little more.
pub async fn flush(dir: &Path, mut expected: Expected, dice: Dice) -> Tried<Expected> {
    let database = fjall::Database::builder(engine_dir(dir)).open()?;
    for name in ["state", "log"] {
        database
            .keyspace(name, fjall::KeyspaceCreateOptions::default)?
            .rotate_memtable_and_wait()?;
    }
    drop(database);
    let disk = open(dir)?;
    let store = disk.unlock(&root()?).await.map_err(|error| causes(&error))?;
    let rooms = Rooms::load(&store, Timestamp(expected.now)).await?;
    let setup = expected.tokens.first().ok_or("no token")?.clone();
    let caller = rooms
        .token
        .identify(&setup)
        .map_err(|_| "the set-up token is nobody's")?;
    let mut maker = Maker {
        store,
        notary: Notary::new(),
        dice,
        made: 0,
        expected,
    };
    maker.secret(&rooms, &caller, "kv/app/late", 25).await?;
    let Maker {
        store,
        made,
        expected: grown,
        ..
    } = maker;
    expected = grown;
    expected.audit_records += made;
    expected.rows = rows(&store).await?.0;
    drop((store, rooms));
    disk.close();
    Ok(expected)
}

fn word(part: &OwnedPart) -> String {
    match part {
        OwnedPart::Name(name) => format!("n:{name}"),
        OwnedPart::Raw(raw) => format!("r:{}", HEXLOWER.encode(raw)),
    }
}

/// Everything in the store; and, in words, what did not open.
pub async fn rows(store: &Store) -> Tried<(BTreeSet<Row>, Vec<String>)> {
    let (mut rows, mut damaged) = (BTreeSet::new(), Vec::new());
    for table in Table::ALL {
        let (view, mut next) = (store.view(Namespace::ROOT, *table), None);
        loop {
            let page = view
                .scan(&[], next.as_ref(), 1000)
                .await
                .map_err(|error| causes(&error))?;
            for entry in page.entries {
                let key: Vec<_> = entry.key.iter().map(word).collect();
                // What was scanned must also be found.
                let parts: Vec<_> = entry.key.iter().map(OwnedPart::as_part).collect();
                let got = view.get(&parts).await.map_err(|error| causes(&error))?;
                if got.is_none_or(|got| got.value != entry.record.value) {
                    return Err("a scan and a look-up differ".into());
                }
                rows.insert((table.id(), key.join(" "), entry.record.value.to_vec()));
            }
            damaged.extend(page.damaged);
            next = page.next;
            if next.is_none() {
                break;
            }
        }
    }
    for table in [RawTable::Slots, RawTable::Fence] {
        let (found, broken) = store.raw().list(table).await.map_err(|error| causes(&error))?;
        rows.extend(
            found
                .into_iter()
                .map(|(id, record)| (table.id(), HEXLOWER.encode(&id), record.value.to_vec())),
        );
        damaged.extend(broken);
    }
    Ok((rows, damaged))
}
