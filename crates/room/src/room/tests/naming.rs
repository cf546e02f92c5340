//! Clients that name their doctype by its hash.

use tidelog_sync::OpenDoctype;
use tidelog_types::{CopySecret, Lineage};

use super::*;

/// A later release of the notes.
fn newer() -> Doctype {
    let mut newer = notes();
    newer.migrations.push("create table more (id text) strict".to_owned());
    newer
}

impl Scene {
    fn open_by(&mut self, conn: ConnId, doctype: OpenDoctype, intent: Intent) -> Vec<String> {
        let message = ToRoom::Open {
            document: "notebook".to_owned(),
            doctype,
            timeline: JournalId([conn.0 as u8; 16]),
            secret: CopySecret::NONE,
            have: None,
            intent,
        };
        self.say(conn, message);
        brief(&self.heard(conn))
    }

    /// How it is answered; who follows already may hear of an entry before.
    fn follow_by(&mut self, conn: ConnId, doctype: OpenDoctype) -> String {
        let mut heard = self.open_by(conn, doctype, Intent::Follow);
        heard.retain(|it| it.starts_with("opened") || it.starts_with("refused"));
        assert_eq!(heard.len(), 1, "{heard:?}");
        heard.swap_remove(0)
    }
}

fn named(doctype: &Doctype) -> OpenDoctype {
    OpenDoctype::Named(doctype.hash().0)
}

fn whole(doctype: &Doctype) -> OpenDoctype {
    codec::encode(doctype).into()
}

#[test]
fn a_doctype_that_the_document_knows_is_named_and_any_other_is_wanted() {
    let mut scene = Scene::new();
    assert_eq!(scene.follow_by(ANN, named(&notes())), "refused DoctypeWanted");
    assert!(matches!(scene.ask(Ask::Describe), Answer::Missing), "nothing is begun by a name");
    assert_eq!(scene.follow_by(ANN, whole(&notes())), "opened 2 wanted 1");
    assert_eq!(scene.follow_by(BOB, named(&notes())), "opened 2 wanted 1");

    assert_eq!(scene.follow_by(BOB, named(&newer())), "refused DoctypeWanted");
    assert_eq!(scene.follow_by(BOB, whole(&newer())), "opened 3 wanted 1");
    assert_eq!(scene.follow_by(ANN, named(&newer())), "opened 3 wanted 1");
    scene.restart();
    assert_eq!(scene.follow_by(ANN, named(&newer())), "opened 3 wanted 1");
    assert_eq!(scene.follow_by(ANN, named(&notes())), "opened 3 wanted 1");
}

#[test]
fn who_hands_a_document_over_brings_its_doctype() {
    let mut scene = Scene::new();
    let offer = || Intent::Offer { lives: Lineage::default() };
    assert_eq!(scene.open_by(ANN, named(&notes()), offer()), ["refused DoctypeWanted"]);
    assert_eq!(scene.open_by(ANN, whole(&notes()), offer()), ["seed wanted"]);
}
