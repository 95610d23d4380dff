//! The secret as simply as it can be told, to compare the room with.

use super::*;

#[derive(Debug, Clone)]
pub(super) enum Op {
    Put { size: usize, cas: Option<u64> },
    Delete(Vec<u64>),
    Undelete(Vec<u64>),
    Destroy(Vec<u64>),
    DestroyAll,
    Label(String, u64),
    VersionsMax(u32),
    CasRequired(bool),
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let some = || collection::vec(0..9u64, 0..3);
    prop_oneof![
        6 => (select(vec![0, 1, INLINE_BYTES_MAX - 20, INLINE_BYTES_MAX + 1]), proptest::option::weighted(0.3, 0..9u64)).prop_map(|(size, cas)| Op::Put { size, cas }),
        2 => some().prop_map(Op::Delete),
        2 => some().prop_map(Op::Undelete),
        2 => some().prop_map(Op::Destroy),
        1 => Just(Op::DestroyAll),
        2 => (select(vec!["a", "b", PREVIOUS, CURRENT, PENDING]), 0..9u64).prop_map(|(label, version)| Op::Label(label.to_owned(), version)),
        1 => (1..4u32).prop_map(Op::VersionsMax),
        1 => any::<bool>().prop_map(Op::CasRequired),
    ]
}

/// The secret as simply as it can be told: every version ever made, in one map. `Err(())`: refused, nothing changed.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    versions: BTreeMap<u64, (Vec<u8>, char)>,
    labels: BTreeMap<String, u64>,
    max: usize,
    cas_required: bool,
}

impl Model {
    fn newest(&self) -> u64 {
        self.versions.keys().next_back().copied().unwrap_or(0)
    }
    fn named(&self, versions: &[u64]) -> Result<Vec<u64>, ()> {
        let versions = if versions.is_empty() {
            vec![self.newest()]
        } else {
            versions.to_vec()
        };
        versions
            .iter()
            .all(|version| self.versions.contains_key(version))
            .then_some(versions)
            .ok_or(())
    }
    pub(super) fn apply(slot: &mut Option<Self>, op: &Op, value: &[u8]) -> Result<(), ()> {
        if let Op::Put { cas, .. } = op {
            let model = slot.clone().unwrap_or(Self {
                max: 10,
                ..Self::default()
            });
            if cas.map_or(model.cas_required, |cas| cas != model.newest()) {
                return Err(());
            }
            *slot = Some(model.put(value));
            return Ok(());
        }
        let mut model = slot.clone().ok_or(())?;
        match op {
            Op::Put { .. } => {}
            Op::Delete(versions) => model.mark(&model.named(versions)?, |state| if state == 'l' { 'd' } else { state }),
            Op::Undelete(versions) => {
                let named = model.named(versions)?;
                if named.iter().any(|version| model.versions[version].1 == 'x') {
                    return Err(());
                }
                model.mark(&named, |_| 'l');
            }
            Op::Destroy(versions) => {
                let named = model.named(versions)?;
                if versions.is_empty()
                    || named
                        .iter()
                        .any(|version| *version == model.newest() || model.labels.values().any(|at| at == version))
                {
                    return Err(());
                }
                model.mark(&named, |_| 'x');
            }
            Op::DestroyAll => {
                *slot = None;
                return Ok(());
            }
            Op::Label(label, version) => match (label.as_str(), *version) {
                (CURRENT, _) | (PENDING, 1..) => return Err(()),
                (_, 0) => drop(model.labels.remove(label)),
                (_, version) if model.versions.get(&version).is_none_or(|(_, state)| *state == 'x') => return Err(()),
                (_, version) => drop(model.labels.insert(label.clone(), version)),
            },
            Op::VersionsMax(max) => model.max = usize::try_from(*max).unwrap(),
            Op::CasRequired(required) => model.cas_required = *required,
        }
        *slot = Some(model);
        Ok(())
    }
    fn put(mut self, value: &[u8]) -> Self {
        let former = self.newest();
        self.versions.insert(former + 1, (value.to_vec(), 'l'));
        if former > 0 {
            self.labels.insert(PREVIOUS.to_owned(), former);
        }
        // What an operator's label holds is beside the maximum.
        let labelled = |labels: &BTreeMap<String, u64>, version: u64| {
            let mine = |(label, at): (&String, &u64)| *at == version && label != PREVIOUS && label != CURRENT;
            labels.iter().any(mine)
        };
        while self
            .versions
            .keys()
            .filter(|version| !labelled(&self.labels, **version))
            .count()
            > self.max
        {
            let held = |version: u64| {
                version == former + 1
                    || self
                        .labels
                        .iter()
                        .any(|(label, at)| *at == version && label != PREVIOUS)
            };
            let Some(oldest) = self.versions.keys().copied().find(|version| !held(*version)) else {
                break;
            };
            self.versions.remove(&oldest);
            self.labels.retain(|_, at| *at != oldest);
        }
        self
    }
    fn mark(&mut self, versions: &[u64], to: impl Fn(char) -> char) {
        for version in versions {
            let state = &mut self.versions.get_mut(version).unwrap().1;
            *state = to(*state);
        }
    }
}

pub(super) async fn step(f: &Fixture, at: &str, op: &Op, value: &[u8]) -> Result<(), KvError> {
    let place = f.place(at);
    let settings = |settings: Settings| async move { f.set(at, &settings).await };
    match op {
        Op::Put { cas, .. } => f.put(at, value, *cas).await.map(drop),
        Op::Delete(versions) => {
            f.done(f.kv.delete(&permit(Action::Delete, at), &place, versions).await)
                .await
        }
        Op::Undelete(versions) => {
            f.done(f.kv.undelete(&permit(Action::Undelete, at), &place, versions).await)
                .await
        }
        Op::Destroy(versions) => f.destroy(at, Destroy::Versions(versions.clone())).await,
        Op::DestroyAll => f.destroy(at, Destroy::All).await,
        Op::Label(label, version) => {
            settings(Settings {
                labels: [(label.clone(), *version)].into(),
                ..Settings::default()
            })
            .await
        }
        Op::VersionsMax(max) => {
            settings(Settings {
                versions_max: Some(*max),
                ..Settings::default()
            })
            .await
        }
        Op::CasRequired(required) => {
            settings(Settings {
                cas_required: Some(*required),
                ..Settings::default()
            })
            .await
        }
    }
}

pub(super) async fn agrees(f: &Fixture, at: &str, model: Option<&Model>) {
    let history = f.kv.history(&permit(Action::Metadata, at), &f.place(at)).await;
    let Some(model) = model else {
        assert!(matches!(history, Err(KvError::NotFound)));
        assert_eq!(f.values().await, 0, "nothing is left of a secret that is gone");
        return;
    };
    let history = history.unwrap();
    let known: Vec<u64> = history.versions.iter().map(|entry| entry.version).collect();
    assert_eq!(known, model.versions.keys().copied().collect::<Vec<_>>());
    let mut recorded = 0;
    for version in 0..=80 {
        let got = f.get(at, Select::Version(version)).await;
        match (model.versions.get(&version), got) {
            (Some((want, 'l')), Ok(secret)) => assert!(value(&secret) == *want, "version {version}"),
            (Some((_, 'd')), Err(KvError::Deleted(_)))
            | (Some((_, 'x')), Err(KvError::Destroyed(_)))
            | (None, Err(KvError::NoVersion(_))) => {}
            (want, got) => panic!(
                "version {version}: {:?} {:?}",
                want.map(|(_, state)| state),
                got.map(|secret| secret.version)
            ),
        }
        let large = |value: &Vec<u8>| value.len() > INLINE_BYTES_MAX - 20;
        recorded += usize::from(
            model
                .versions
                .get(&version)
                .is_some_and(|(value, state)| *state != 'x' && (version != model.newest() || large(value))),
        );
    }
    assert_eq!(f.values().await, recorded, "no value is left behind, none is lost");
    for (label, version) in model
        .labels
        .iter()
        .map(|(label, version)| (label.as_str(), *version))
        .chain([(CURRENT, model.newest())])
    {
        if let Ok(secret) = f.get(at, Select::Label(label.to_owned())).await {
            assert_eq!(secret.version, version, "{label}");
        }
        assert!(
            history
                .versions
                .iter()
                .any(|entry| entry.version == version && entry.labels.iter().any(|known| known == label))
        );
    }
    let labels: usize = history.versions.iter().map(|entry| entry.labels.len()).sum();
    assert_eq!(labels, model.labels.len() + 1);
}
