//! Listings.

use super::*;
use std::collections::BTreeSet;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// R-KV-2: pages of any size, plain and recursive, show exactly what the caller may see, each name once, while other names come and go.
    #[test]
    fn listings_show_what_may_be_seen(
        names in collection::btree_set("[abc](/[abc]){0,3}", 1..24),
        churn in collection::vec("[de](/[ab]){0,2}", 8),
        limit in 1..6usize,
        hidden in "kv/[abc](/[abc]){0,1}",
    ) {
        run(async {
            let f = fixture().await;
            for name in &names {
                f.put(&format!("kv/{name}"), b"v", None).await.unwrap();
            }
            let policies = format!("{} forbid(principal, action, resource in S::Path::\"{hidden}\");", permits::ALL);
            let who = permits::caller("ann", &[], Purpose::Session);
            let sees = |name: &str| !permits::path(&format!("kv/{name}")).is_within(&permits::path(&hidden));
            let list = permit_under(&policies, &who, Action::List, "kv", Claim::Policy).unwrap();
            let mut churn = churn.iter().cycle();
            for recursive in [false, true] {
                let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
                loop {
                    let query = ListQuery { recursive, limit, after, search: String::new() };
                    let page = f.kv.list(&list, &f.place("kv"), &query).await.unwrap();
                    assert!(page.entries.len() <= limit.max(2) && page.entries.is_sorted());
                    seen.extend(page.entries.into_iter().map(|entry| entry.name).filter(|name| !name.starts_with(['d', 'e'])));
                    pages += 1;
                    after = page.next;
                    if after.is_none() || pages > 100 {
                        break;
                    }
                    f.put(&format!("kv/{}", churn.next().unwrap()), b"v", None).await.unwrap();
                }
                seen.sort();
                let tops = names.iter().flat_map(|name| match name.split_once('/') {
                    Some((top, _)) => vec![format!("{top}/")],
                    None => vec![name.clone()],
                });
                let want: BTreeSet<String> = if recursive { names.clone() } else { tops.collect() };
                let want: Vec<String> = want.into_iter().filter(|name| sees(name.trim_end_matches('/'))).collect();
                assert_eq!(seen, want, "recursive {recursive}");
            }
        });
    }
}

/// R-KV-2: a page looks at a bounded number of names, also when none may be seen, and goes on from there.
#[tokio::test]
async fn a_page_of_hidden_names_is_bounded() {
    let f = fixture().await;
    for number in 0..LIST_SCAN_MAX + 10 {
        f.put(&format!("kv/hidden/n{number}"), b"v", None).await.unwrap();
    }
    let only = r#"permit(principal, action == S::Action::"list", resource == S::Path::"kv/hidden");"#;
    let list = permit_under(
        only,
        &permits::caller("ann", &[], Purpose::Session),
        Action::List,
        "kv/hidden",
        Claim::Policy,
    )
    .unwrap();
    for recursive in [false, true] {
        let query = ListQuery {
            recursive,
            limit: 5,
            ..ListQuery::default()
        };
        let first = f.kv.list(&list, &f.place("kv/hidden"), &query).await.unwrap();
        assert!(first.entries.is_empty() && first.next.is_some());
        let second =
            f.kv.list(
                &list,
                &f.place("kv/hidden"),
                &ListQuery {
                    after: first.next,
                    ..query
                },
            )
            .await
            .unwrap();
        assert!(second.entries.is_empty() && second.next.is_none());
    }
}

/// R-KV-2: a page token is good for the same listing of the same caller only, and a page never leaves its folder.
#[tokio::test]
async fn a_page_token_is_for_its_listing() {
    let f = fixture().await;
    for name in ["a/x", "b/x", "b/y", "c/x"] {
        f.put(&format!("kv/{name}"), b"v", None).await.unwrap();
    }
    let ann = permits::caller("ann", &[], Purpose::Session);
    let by = |who, at: &str| permit_under(permits::ALL, who, Action::List, at, Claim::Policy).unwrap();
    let query = |recursive, after| ListQuery {
        recursive,
        limit: 1,
        after,
        search: String::new(),
    };
    let first =
        f.kv.list(&by(&ann, "kv/b"), &f.place("kv/b"), &query(true, None))
            .await
            .unwrap();
    let next = first.next.unwrap();
    let second =
        f.kv.list(&by(&ann, "kv/b"), &f.place("kv/b"), &query(true, Some(next.clone())))
            .await
            .unwrap();
    assert_ne!(first.entries, second.entries);
    let bob = permits::caller("bob", &[], Purpose::Session);
    for (who, at, recursive, token) in [
        (&bob, "kv/b", true, next.clone()),
        (&ann, "kv/c", true, next.clone()),
        (&ann, "kv/b", false, next.clone()),
        (&ann, "kv/b", true, next[1..].to_vec()),
        (&ann, "kv/b", true, vec![]),
        (&ann, "kv/b", true, vec![0xff; 5000]),
    ] {
        let page =
            f.kv.list(&by(who, at), &f.place(at), &query(recursive, Some(token)))
                .await;
        assert!(matches!(page, Err(KvError::Page(_))), "{at} {recursive}");
    }
    let all =
        f.kv.list(&by(&ann, "kv/b"), &f.place("kv/b"), &ListQuery::default())
            .await
            .unwrap();
    assert_eq!(
        all.entries.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(),
        ["x", "y"]
    );
}

/// R-KV-2: a search shows the names that contain its text, of those that the caller may see, and pages like any listing.
#[tokio::test]
async fn a_search_shows_what_it_names() {
    let f = fixture().await;
    for name in [
        "app/Database",
        "app/cache",
        "db/database-2",
        "db/hidden/database-3",
        "databases/x",
    ] {
        f.put(&format!("kv/{name}"), b"v", None).await.unwrap();
    }
    let policies = format!(
        "{} forbid(principal, action, resource in S::Path::\"kv/db/hidden\");",
        permits::ALL
    );
    let ann = permits::caller("ann", &[], Purpose::Session);
    let list = permit_under(&policies, &ann, Action::List, "kv", Claim::Policy).unwrap();
    for (recursive, search, want) in [
        (true, "DATABASE", vec!["app/Database", "databases/x", "db/database-2"]),
        (true, "db/", vec!["db/database-2"]),
        (true, "nothing", vec![]),
        (false, "base", vec!["databases/"]),
        (false, "", vec!["app/", "databases/", "db/"]),
    ] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let query = ListQuery {
                recursive,
                limit: 1,
                after,
                search: search.to_owned(),
            };
            let page = f.kv.list(&list, &f.place("kv"), &query).await.unwrap();
            seen.extend(page.entries.into_iter().map(|entry| entry.name));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        seen.sort();
        assert_eq!(seen, want, "{search} {recursive}");
    }
}
