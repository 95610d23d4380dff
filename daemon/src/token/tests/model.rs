//! Tokens as the rules have them, to compare the room with.

use super::*;

#[derive(Debug, Clone)]
pub(super) enum Op {
    Child {
        by: usize,
        ttl: u64,
    },
    Named {
        by: usize,
        ttl: u64,
        max: u64,
    },
    Renew {
        token: usize,
        ttl: u64,
    },
    Revoke {
        token: usize,
        session: bool,
    },
    /// A named token (or a renewal) that is prepared now and committed after the next act.
    Late {
        by: usize,
        renew: bool,
    },
    Wait(u64),
    Sweep,
    Crash,
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let token = || 0..40usize;
    prop_oneof![
        4 => (token(), 1..2000u64).prop_map(|(by, ttl)| Op::Child { by, ttl }),
        4 => (token(), 1..2000u64, 1..2000u64).prop_map(|(by, ttl, max)| Op::Named { by, ttl, max }),
        4 => (token(), 0..2000u64).prop_map(|(token, ttl)| Op::Renew { token, ttl }),
        2 => (token(), any::<bool>()).prop_map(|(token, session)| Op::Revoke { token, session }),
        3 => (token(), any::<bool>()).prop_map(|(by, renew)| Op::Late { by, renew }),
        3 => (1..600u64).prop_map(Op::Wait),
        2 => Just(Op::Sweep),
        1 => Just(Op::Crash),
    ]
}

/// A token as the rules have it: ended by hand, or by the clock, or by whoever made it.
struct Model {
    token: Created,
    /// The token it is a child of.
    parent: Option<usize>,
    /// The token whose session made its session.
    maker: Option<SessionId>,
    ttl: u64,
    expires: Timestamp,
    max_expires: Timestamp,
    ended: bool,
}

fn end_tree(all: &mut [Model], over: &mut BTreeSet<SessionId>, session: SessionId) {
    let mut open = vec![session];
    while let Some(session) = open.pop() {
        over.insert(session);
        // Also what a session made that is over by now.
        let made: BTreeSet<SessionId> = all
            .iter()
            .filter(|model| model.maker == Some(session))
            .map(|model| model.token.session)
            .collect();
        open.extend(made);
        for model in all.iter_mut().filter(|model| model.token.session == session) {
            model.ended = true;
        }
    }
}

/// A change that is prepared, and what it does if it is made.
enum Late {
    Named(Change, Model),
    Renew(Change, usize, Timestamp),
}

async fn prepare(f: &Fixture, all: &[Model], by: usize, renew: bool) -> Late {
    let caller = f.who(&all[by].token).unwrap();
    if renew {
        let permit = f.permit(&caller, Action::TokenRenew, all[by].token.accessor);
        let (change, renewed) = f.room.renew(&permit, all[by].token.accessor, 500).await.unwrap();
        return Late::Renew(change, by, renewed.expires);
    }
    let ask = NewToken {
        ttl_secs: 300,
        max_ttl_secs: 600,
        ..named("late")
    };
    let (change, token) = f.room.create(&f.create_permit(&caller, &ask), &ask).await.unwrap();
    let max_expires = token.expires.plus_secs(300);
    let maker = Some(all[by].token.session);
    Late::Named(
        change,
        Model {
            parent: None,
            maker,
            ttl: 300,
            expires: token.expires,
            max_expires,
            ended: false,
            token,
        },
    )
}

async fn finish(f: &Fixture, all: &mut Vec<Model>, over: &BTreeSet<SessionId>, late: Late) {
    match late {
        Late::Named(change, mut model) => {
            if f.commit(change).await.is_ok() {
                model.ended = model.maker.is_some_and(|maker| over.contains(&maker));
                all.push(model);
            } else {
                assert!(!f.passes(&model.token));
            }
        }
        Late::Renew(change, index, expires) => {
            if f.commit(change).await.is_ok() {
                all[index].expires = expires;
            }
        }
    }
}

pub(super) async fn play(ops: &[Op]) {
    let mut f = fixture().await;
    let setup = f.setup().await;
    let max = setup.expires;
    let mut all = vec![Model {
        ttl: 3600,
        expires: max,
        max_expires: max,
        parent: None,
        maker: None,
        ended: false,
        token: setup,
    }];
    let (mut over, mut late) = (BTreeSet::new(), None);
    for (number, op) in ops.iter().enumerate() {
        let pending = late.take();
        let now = crate::base::time::Clock::now(&*f.clock);
        let lives = |all: &[Model], index: usize| !all[index].ended && all[index].expires > now;
        match op {
            Op::Child { by, ttl } => {
                let by = by % all.len();
                if lives(&all, by) {
                    let token = f
                        .create(
                            &all[by].token,
                            &NewToken {
                                ttl_secs: *ttl,
                                ..NewToken::default()
                            },
                        )
                        .await
                        .unwrap();
                    let max_expires = all[by].max_expires;
                    let expires = now.plus_secs(*ttl).min(max_expires);
                    let maker = all[by].maker;
                    all.push(Model {
                        token,
                        parent: Some(by),
                        maker,
                        ttl: *ttl,
                        expires,
                        max_expires,
                        ended: false,
                    });
                }
            }
            Op::Named { by, ttl, max } => {
                let by = by % all.len();
                if lives(&all, by) {
                    let ask = NewToken {
                        ttl_secs: *ttl,
                        max_ttl_secs: *max,
                        ..named(&format!("n{}", number % 3))
                    };
                    let token = f.create(&all[by].token, &ask).await.unwrap();
                    let max_expires = now.plus_secs(*max);
                    let expires = now.plus_secs(*ttl).min(max_expires);
                    let maker = Some(all[by].token.session);
                    all.push(Model {
                        token,
                        parent: None,
                        maker,
                        ttl: *ttl,
                        expires,
                        max_expires,
                        ended: false,
                    });
                }
            }
            Op::Renew { token, ttl } => {
                let token = token % all.len();
                if lives(&all, token) {
                    f.renew(&all[token].token, *ttl).await.unwrap();
                    let model = &mut all[token];
                    let ttl = if *ttl == 0 { model.ttl } else { *ttl };
                    model.expires = model.expires.max(now.plus_secs(ttl).min(model.max_expires));
                }
            }
            Op::Revoke { token, session } => {
                let token = token % all.len();
                if lives(&all, token) {
                    f.revoke(&all[token].token, &all[token].token, *session).await.unwrap();
                    if *session {
                        let session = all[token].token.session;
                        end_tree(&mut all, &mut over, session);
                    } else {
                        all[token].ended = true;
                        for index in 0..all.len() {
                            all[index].ended |= all[index].parent.is_some_and(|parent| all[parent].ended);
                        }
                    }
                }
            }
            Op::Late { by, renew } => {
                let by = by % all.len();
                if lives(&all, by) {
                    late = Some(prepare(&f, &all, by, *renew).await);
                }
            }
            Op::Wait(secs) => f.wait(*secs),
            Op::Sweep => {
                // One batch of two: the next act meets what is half swept.
                if let Some(change) = f.room.sweep().await.unwrap() {
                    f.commit(change).await.unwrap();
                }
            }
            // A crash loses what was not committed.
            Op::Crash => {
                f = f.again().await;
                continue;
            }
        }
        if let Some(pending) = pending {
            finish(&f, &mut all, &over, pending).await;
        }
        let now = crate::base::time::Clock::now(&*f.clock);
        for (index, model) in all.iter().enumerate() {
            let want = !model.ended && model.expires > now;
            assert_eq!(f.passes(&model.token), want, "token {index} after {op:?}");
            assert!(model.expires <= model.max_expires);
        }
    }
}
