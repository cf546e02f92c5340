//! Documents of a server: which there are.

use serde_json::{Value, json};

use crate::common::{ROLES, Scene, ask, token};

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_listed_by_prefix_and_page() {
    let names = ["a", "lists/a", "lists/b", "lists/é", "other/x"];
    let scene = Scene::new(&names).await;
    let listed = async |query: &str, role: usize| {
        let path = format!("/v1/documents{query}");
        let answer = ask(scene.at, "GET", &path, Some(&token(ROLES[role].1)), "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
        (body["documents"].clone(), body["next"].clone())
    };
    let (root, read) = (6, 2);
    assert_eq!(listed("", root).await, (json!(names), Value::Null));
    assert_eq!(listed("", read).await.0, json!(["lists/a", "lists/b", "lists/é"]));
    assert_eq!(listed("?prefix=lists%2F", root).await.0, json!(["lists/a", "lists/b", "lists/é"]));
    assert_eq!(listed("?prefix=o", read).await.0, json!([]), "what it may not read");
    assert_eq!(listed("?limit=2", root).await, (json!(["a", "lists/a"]), json!("lists/a")));
    let second = listed("?limit=2&after=lists%2Fa", root).await;
    assert_eq!(second, (json!(["lists/b", "lists/é"]), json!("lists/é")));
    let third = listed("?limit=2&after=lists%2F%C3%A9", root).await;
    assert_eq!(third, (json!(["other/x"]), Value::Null));
    // A page is of what may be read: that it ends is no word of what is behind it.
    assert_eq!(listed("?limit=3", read).await.1, Value::Null);
    let first = listed("?prefix=lists%2F&limit=1", read).await;
    assert_eq!(first, (json!(["lists/a"]), json!("lists/a")));
    for wrong in ["?limit=x", "?limit=-1", "?perfix=a"] {
        let path = format!("/v1/documents{wrong}");
        let answer = ask(scene.at, "GET", &path, Some(&token(ROLES[6].1)), "").await;
        assert_eq!(answer.status, 400, "{wrong}");
    }
    scene.stop().await;
}
