//! Tokens that are renewed on a connection that stands.

use tidelog_client::{Call, Handle, TabId, ToCore};
use tidelog_document::Mutation;
use tidelog_pages::StoreReply;
use tidelog_sync::{ByeReason, Channel, FromRoom, FromServer, Refusal, ToRoom, ToServer};
use tidelog_testing::client::core::{Core, adding, key};
use tidelog_testing::client::*;
use tidelog_types::limits::Limits;
use tidelog_types::{BudgetLimits, Life};

const X: &str = "ws://x";

/// A core that the server has let in by a token of the first tab, for so long; a second tab can be
/// asked for one as well.
fn let_in(seconds_left: u64) -> Core {
    let mut core = Core::default();
    core.has_token = true;
    core.open_new(Call(1), HANDLE, "list", Some(X));
    core.ask_to_open(OTHER_TAB, Call(1), HANDLE, "list", Some(X));
    core.socket_opens(X);
    give(&mut core, TAB, Some("first"));
    admit(&mut core, seconds_left);
    core.hear(X, &FromServer::Welcome);
    core.server_opens(X, 1);
    assert_eq!(core.tokens_wanted, [TAB]);
    core
}

fn give(core: &mut Core, tab: TabId, token: Option<&str>) {
    core.give_token(tab, HANDLE, token);
}

fn admit(core: &mut Core, seconds_left: u64) {
    core.hear(X, &FromServer::Admitted { subject: "ada".to_owned(), seconds_left });
}

/// Time goes by, in which the server answers whenever it is asked for a sign of life.
fn pass(core: &mut Core, seconds: u64) {
    for _ in 0..seconds {
        core.pass(1_000);
        core.hear(X, &FromServer::Pong);
    }
}

fn renewed(core: &Core) -> Vec<&str> {
    let tokens = core.sent.iter().filter_map(|(_, message)| match message {
        ToServer::Renew { token } => Some(token.as_str()),
        _ => None,
    });
    tokens.collect()
}

/// Seconds until somebody is asked for another token.
fn asked_after(core: &mut Core, seconds_max: u64) -> Option<u64> {
    let before = core.tokens_wanted.len();
    (0..seconds_max).find(|_| {
        let is_asked = core.tokens_wanted.len() > before;
        if !is_asked {
            pass(core, 1);
        }
        is_asked
    })
}

#[test]
fn a_token_is_renewed_before_it_expires_and_the_connection_stays() {
    let mut core = let_in(1_600);
    for (token, seconds_left) in [("second", 160), ("third", 16_000)] {
        let after = asked_after(&mut core, 1_600).expect("it is asked for");
        let before = if token == "second" { 1_600 } else { 160 };
        assert!(after * 16 > before * 11 - 16 && after * 4 <= before * 3 + 4, "{after}");
        assert_eq!(core.tokens_wanted.last(), Some(&TAB), "whose token let us in");
        give(&mut core, TAB, Some(token));
        admit(&mut core, seconds_left);
    }
    assert_eq!(renewed(&core), ["second", "third"]);
    assert_eq!(core.tokens_sent(X).len(), 1, "there was one connection");
}

/// Goal: a tab whose token function throws, or takes its time, holds up no other one.
#[test]
fn a_tab_that_has_no_further_token_gives_way_to_another_one() {
    for is_silent in [true, false] {
        let mut core = let_in(160);
        asked_after(&mut core, 160).expect("it is asked for");
        if is_silent {
            pass(&mut core, 4);
            assert_eq!(core.tokens_wanted, [TAB, TAB]);
            pass(&mut core, 1);
        } else {
            give(&mut core, TAB, None);
        }
        assert_eq!(core.tokens_wanted, [TAB, TAB, OTHER_TAB]);
        give(&mut core, OTHER_TAB, Some("other"));
        assert_eq!(renewed(&core), ["other"]);
        // It is late, and may be the better one.
        if is_silent {
            give(&mut core, TAB, Some("late"));
            core.hear(X, &FromServer::NotRenewed);
            assert_eq!(renewed(&core), ["other", "late"]);
        }
    }
}

/// Goal: an app whose token function has all who ask wait for one login floods no server once that
/// is done, which reads nothing behind many renewals for a while. Method: all were asked many
/// times, and all answer at once, with one token or each with its own.
#[test]
fn of_tokens_that_come_together_one_is_offered_and_then_the_newest() {
    for (is_taken, is_one) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut core = let_in(1_600);
        asked_after(&mut core, 1_600).expect("it is asked for");
        pass(&mut core, 200);
        let asked = core.tokens_wanted.len();
        assert!(asked > 10, "{asked}");
        for nth in 0..asked - 1 {
            let tab = core.tokens_wanted[nth + 1];
            give(&mut core, tab, Some(&format!("token {}", if is_one { 0 } else { nth })));
        }
        assert_eq!(renewed(&core), ["token 0"]);
        let newest = format!("token {}", asked - 2);
        let sent: &[&str] = if is_one { &["token 0"] } else { &["token 0", &newest] };
        for _ in 0..2 {
            match is_taken {
                true => admit(&mut core, 1_600),
                false => core.hear(X, &FromServer::NotRenewed),
            }
            assert_eq!(renewed(&core), sent);
        }
    }
}

/// Goal: a token is renewed by a function that takes longer than anybody is waited for, too.
/// Method: both tabs were asked and have not answered; the first one answers then.
#[test]
fn a_token_that_comes_after_all_were_asked_is_taken() {
    let mut core = let_in(160);
    asked_after(&mut core, 160).expect("it is asked for");
    pass(&mut core, 12);
    give(&mut core, TAB, Some("late"));
    assert_eq!(renewed(&core), ["late"]);
}

/// Goal: of two tabs with a token each, neither's is lost for what the other one says again.
#[test]
fn a_token_that_is_offered_already_takes_the_place_of_no_other() {
    let mut core = let_in(1_600);
    asked_after(&mut core, 1_600).expect("it is asked for");
    pass(&mut core, 30);
    assert!(core.tokens_wanted.len() > 4);
    for (tab, token) in [(TAB, "one"), (OTHER_TAB, "other"), (TAB, "one")] {
        give(&mut core, tab, Some(token));
    }
    core.hear(X, &FromServer::NotRenewed);
    assert_eq!(renewed(&core), ["one", "other"]);
}

/// Goal: where nobody has a token that is taken, all are asked again, less and less often, and the
/// old one serves for as long as it does.
#[test]
fn who_has_no_further_token_is_asked_again_less_and_less_often() {
    let mut core = let_in(160_000);
    asked_after(&mut core, 160_000).expect("it is asked for");
    let mut pauses = Vec::new();
    for _ in 0..9 {
        give(&mut core, TAB, Some("of another subject"));
        core.hear(X, &FromServer::NotRenewed);
        core.pass(0);
        assert_eq!(core.tokens_wanted.last(), Some(&OTHER_TAB));
        give(&mut core, OTHER_TAB, None);
        pauses.push(asked_after(&mut core, 400).expect("it is asked again"));
        assert_eq!(core.tokens_wanted.last(), Some(&TAB));
    }
    assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
    assert_eq!(core.tokens_sent(X).len(), 1, "there was one connection");
}

/// Goal: a connection that comes after is asked for by the token that let us in, and not by one
/// that was refused in its place: it would be another subject's. Method: who let us in has no
/// further one just then, and somebody else's is refused; then the connection breaks.
#[test]
fn who_let_us_in_is_asked_first_though_another_token_was_refused_in_its_place() {
    let mut core = let_in(160);
    asked_after(&mut core, 160).expect("it is asked for");
    give(&mut core, TAB, None);
    give(&mut core, OTHER_TAB, Some("of another subject"));
    core.hear(X, &FromServer::NotRenewed);
    assert_eq!(core.tokens_wanted, [TAB, TAB, OTHER_TAB]);
    core.lose(X);
    core.pass(1_000);
    core.socket_opens(X);
    assert_eq!(core.tokens_wanted.last(), Some(&TAB));
}

/// Goal: no connection is given up, and no token lost, for an answer to what was asked on the one
/// before. Method: the connection breaks while whoever renews the token is at it, as it may do for
/// the same reason; asked anew, it has none for the first question, and one for the second.
#[test]
fn a_renewal_that_comes_to_nothing_bars_no_token_for_the_next_connection() {
    let mut core = let_in(160);
    asked_after(&mut core, 160).expect("it is asked for");
    core.lose(X);
    core.pass(1_000);
    core.socket_opens(X);
    assert_eq!(core.tokens_wanted, [TAB; 3]);
    give(&mut core, TAB, None);
    give(&mut core, TAB, Some("second"));
    let tokens = ["first", "second"].map(|it| Some(it.to_owned()));
    assert_eq!(core.tokens_sent(X), tokens);
}

/// Goal: an app that gives the same token until it is over is not asked without an end.
#[test]
fn a_token_that_is_given_again_is_asked_for_every_few_seconds_at_most() {
    let mut core = let_in(1);
    for _ in 0..3 {
        assert_eq!(asked_after(&mut core, 100), Some(5));
        give(&mut core, TAB, Some("first"));
        admit(&mut core, 0);
    }
}

/// Goal: a document that the token does not allow is asked for by another token, in a while and not
/// all the time. Method: it is refused again and again.
#[test]
fn a_token_that_does_not_allow_a_document_is_renewed_soon() {
    let mut core = let_in(160_000);
    core.ask_to_open(TAB, Call(9), Handle(9), "other", Some(X));
    core.reply(StoreReply::Opened { document: key("other"), life: Life::NONE, state: None });
    let refuse = |core: &mut Core, channel| {
        let refusal = Refusal::Access { reason: "no".to_owned() };
        let body = FromRoom::Refused(refusal);
        core.hear(X, &FromServer::About { channel: Channel(channel), body });
    };
    refuse(&mut core, 2);
    assert_eq!(asked_after(&mut core, 100), Some(30));
    // It was tried once more by then, whatever comes of that.
    refuse(&mut core, 3);
    give(&mut core, TAB, Some("better"));
    let is_open = |(_, message): &&(String, ToServer)| {
        matches!(message, ToServer::About { body: ToRoom::Open { .. }, .. })
    };
    let opens = |core: &Core| core.sent.iter().filter(is_open).count();
    let before = opens(&core);
    admit(&mut core, 160_000);
    assert_eq!(opens(&core), before + 1, "it is asked for at once");
}

/// A core that was let in as ada, is let in by bob's token for hours, and has asked for ada's.
fn let_in_as_another() -> Core {
    let mut core = let_in(160);
    core.lose(X);
    core.pass(10_000);
    core.socket_opens(X);
    give(&mut core, TAB, Some("bob's"));
    core.hear(X, &FromServer::Admitted { subject: "bob".to_owned(), seconds_left: 160_000 });
    core.hear(X, &FromServer::Welcome);
    assert_eq!(asked_after(&mut core, 100), Some(30));
    core
}

/// Goal: another user's token that is good for hours keeps no copy from its own user's: once a tab
/// has that, the next connection is made by it. Method: the server lets in the other one, and takes
/// no token of another user on that connection.
#[test]
fn the_right_users_token_takes_the_place_of_another_users() {
    let mut core = let_in_as_another();
    give(&mut core, TAB, Some("ada's"));
    assert_eq!(renewed(&core), ["ada's"]);
    core.hear(X, &FromServer::NotRenewed);
    core.pass(10_000);
    core.socket_opens(X);
    assert_eq!(core.tokens_sent(X).last().cloned().flatten().as_deref(), Some("ada's"));
    admit(&mut core, 160_000);
    core.hear(X, &FromServer::Welcome);
    core.server_opens(X, 2);

    // Of whom a token is taken that serves, nobody else's makes it begin anew.
    assert!(asked_after(&mut core, 160_000).is_some());
    give(&mut core, TAB, Some("bob's"));
    core.hear(X, &FromServer::NotRenewed);
    core.pass(10_000);
    assert_eq!(core.tokens_sent(X).len(), 3, "the connection stays");
}

/// Goal: the right user's token is not lost with the connection of another user's that came by it.
/// Method: it comes while an older one is offered there, and the next connections are tried by
/// both.
#[test]
fn a_token_that_comes_as_another_users_connection_ends_is_said_on_a_later_one() {
    let mut core = let_in_as_another();
    assert!(asked_after(&mut core, 10).is_some());
    assert_eq!(core.tokens_wanted[2..], [TAB, OTHER_TAB]);
    give(&mut core, TAB, Some("too old"));
    give(&mut core, OTHER_TAB, Some("ada's"));
    assert_eq!(renewed(&core), ["too old"]);
    core.hear(X, &FromServer::NotRenewed);
    core.pass(10_000);
    core.socket_opens(X);
    core.hear(X, &FromServer::Bye { reason: ByeReason::Unauthenticated });
    core.pass(0);
    core.socket_opens(X);
    let mut said: Vec<_> = core.tokens_sent(X).into_iter().skip(2).flatten().collect();
    said.sort();
    assert_eq!(said, ["ada's", "too old"]);
    assert_eq!(core.tokens_wanted.len(), 4, "nobody is asked once more");
}

/// Goal: what was issued before it was known whose it is does not leave as nobody's, however long
/// it takes until it has moved. Method: it moves a slice at a time, and the server says meanwhile
/// once more where it stands.
#[test]
fn what_has_to_move_is_not_sent_as_it_was() {
    let mut core = Core::with_limits(Limits { slice: BudgetLimits::SMALLEST, ..Limits::DEFAULT });
    core.has_token = true;
    core.open_new(Call(1), HANDLE, "list", Some(X));
    let go_on = |core: &mut Core| {
        while core.wakes_now() {
            core.pass(0);
        }
    };
    go_on(&mut core);
    for call in 2..6 {
        core.ask(Call(call), HANDLE, adding(Call(call), &call.to_string()));
        go_on(&mut core);
        let ticket = core.last_ticket();
        core.reply(StoreReply::Durable { ticket });
    }
    core.socket_opens(X);
    give(&mut core, TAB, Some("first"));
    admit(&mut core, 160);
    core.hear(X, &FromServer::Welcome);
    core.server_opens(X, 1);
    core.server_opens(X, 1);
    go_on(&mut core);
    let ticket = core.last_ticket();
    core.reply(StoreReply::Durable { ticket });
    core.server_opens(X, 2);
    go_on(&mut core);
    let frames = core.sent.iter().filter_map(|(_, message)| match message {
        ToServer::About { body: ToRoom::Frames { frames, .. }, .. } => Some(frames),
        _ => None,
    });
    let users = frames.flatten().map(|frame| Mutation::decode(&frame.body).expect("one").user);
    assert_eq!(users.collect::<Vec<_>>(), ["ada"; 4]);
}

/// Goal: whoever meets another user's token asks for the right one in time, though nothing else
/// happens. Method: a document that was away comes back 20 s after another user was let in.
#[test]
fn a_core_is_woken_to_ask_for_the_right_users_token() {
    let mut core = let_in(160_000);
    core.ask_to_open(TAB, Call(9), Handle(9), "other", Some(X));
    core.reply(StoreReply::Opened { document: key("other"), life: Life::NONE, state: None });
    core.say(ToCore::SetConnected { handle: HANDLE, word: 1 });
    core.lose(X);
    core.pass(10_000);
    core.socket_opens(X);
    core.give_token(TAB, Handle(9), Some("bob's"));
    core.hear(X, &FromServer::Admitted { subject: "bob".to_owned(), seconds_left: 160_000 });
    core.hear(X, &FromServer::Welcome);
    core.server_opens(X, 3);
    pass(&mut core, 20);
    assert_eq!(core.wakes_in_ms(), 15_000, "a sign of life");
    core.say(ToCore::SetConnected { handle: HANDLE, word: 2 });
    assert_eq!(core.wakes_in_ms(), 10_000);
}

/// Goal: whose token let us in last is asked for the next one, and not passed over for one that
/// nobody waited for any more. Method: another tab's comes once the server has taken it.
#[test]
fn a_token_that_comes_behind_a_renewal_is_not_said_on_the_next_connection() {
    let mut core = let_in(160);
    asked_after(&mut core, 160).expect("it is asked for");
    pass(&mut core, 5);
    assert_eq!(core.tokens_wanted, [TAB, TAB, OTHER_TAB]);
    give(&mut core, OTHER_TAB, Some("other"));
    admit(&mut core, 160);
    give(&mut core, TAB, Some("late"));
    core.lose(X);
    core.pass(1_000);
    core.socket_opens(X);
    assert_eq!(core.tokens_sent(X).len(), 1, "it is asked for");
    assert_eq!(core.tokens_wanted.last(), Some(&OTHER_TAB));
}
