//! Tokens: who is asked for one, in which turn, and whom a bad one bars.

use tidelog_client::{Call, Handle, Input, Request, TabId, ToCore};
use tidelog_sync::{ByeReason, FromServer, ToServer};
use tidelog_testing::client::core::Core;
use tidelog_testing::client::*;
use tidelog_types::ErrorCode;

const X: &str = "ws://x";
const Y: &str = "ws://y";
const OTHER: Handle = Handle(2);

/// Goal: whoever hands a local document over is told what is wrong, and not that the server is.
/// Method: the server answers at once, and the tab's token function gives none, or nothing at all.
#[test]
fn an_offer_without_a_token_says_that_the_server_wants_one() {
    for answers in [true, false] {
        let mut core = Core::open();
        core.add(Call(2), "milk");
        core.ask(Call(3), HANDLE, Request::Close);
        core.has_token = true;
        core.ask_to_open(TAB, Call(4), HANDLE, "list", Some(X));
        core.socket_opens(X);
        assert_eq!(core.tokens_wanted, [TAB]);
        if answers {
            core.give_token(TAB, HANDLE, None);
        }
        core.pass(10_000);
        let failure = core.failure_of(Call(4)).expect("it is not handed over");
        assert_eq!(failure.code, ErrorCode::ServerUnreachable);
        assert!(failure.message.contains("wants a token"), "{answers}: {failure:?}");
    }
}

/// A core at which two tabs hold a document of a server, and can both be asked for a token.
fn with_tokens() -> Core {
    let mut core = Core::default();
    core.has_token = true;
    core.open_new(Call(1), HANDLE, "list", Some(X));
    core.ask_to_open(OTHER_TAB, Call(1), HANDLE, "list", Some(X));
    core.socket_opens(X);
    core
}

/// The connection is lost, and opened again after a while.
fn connect_again(core: &mut Core) {
    core.pass(8_000);
    core.pass(2_000);
    core.socket_opens(X);
}

#[test]
fn a_tab_that_gives_no_token_bars_no_other_one() {
    let mut core = with_tokens();
    core.give_token(TAB, HANDLE, None);
    connect_again(&mut core);
    assert_eq!(core.tokens_wanted, [TAB, OTHER_TAB]);
}

#[test]
fn a_tab_that_is_silent_when_it_is_asked_for_a_token_bars_no_other_one() {
    let mut core = with_tokens();
    for asked in [vec![TAB, OTHER_TAB], vec![TAB, OTHER_TAB, TAB]] {
        connect_again(&mut core);
        assert_eq!(core.tokens_wanted, asked);
    }
}

/// Goal: whoever opens a document is not told that there is no token while its own function was not
/// called. Method: two tabs that were asked are silent; a third one comes.
#[test]
fn a_tab_that_was_never_asked_for_a_token_comes_before_those_that_are_silent() {
    let mut core = with_tokens();
    for asked in [vec![TAB, OTHER_TAB], vec![TAB, OTHER_TAB, TAB]] {
        connect_again(&mut core);
        assert_eq!(core.tokens_wanted, asked);
    }
    let newcomer = TabId(0);
    core.ask_to_open(newcomer, Call(1), HANDLE, "list", Some(X));
    core.pass(8_000);
    connect_again(&mut core);
    assert_eq!(core.tokens_wanted.last(), Some(&newcomer));
}

/// A tab that was asked for a token is silent, until the next connection.
fn no_token_comes(core: &mut Core) {
    core.pass(8_000);
    while !core.is_connecting(X) {
        core.pass(1_000);
    }
    core.socket_opens(X);
}

/// Goal: whoever comes late bars nobody, however long the others had none. Method: two tabs are
/// asked for a while, then a third one comes.
#[test]
fn a_tab_that_comes_late_to_be_asked_for_a_token_bars_no_other_one() {
    let mut core = with_tokens();
    (0..10).for_each(|_| no_token_comes(&mut core));
    let newcomer = TabId(0);
    core.ask_to_open(newcomer, Call(1), HANDLE, "list", Some(X));
    (0..4).for_each(|_| no_token_comes(&mut core));
    let asked = &core.tokens_wanted[11..];
    assert_eq!(asked, [newcomer, OTHER_TAB, TAB, newcomer]);
}

#[test]
fn a_tab_that_gave_a_token_is_asked_again() {
    let mut core = with_tokens();
    connect_again(&mut core);
    for _ in 0..2 {
        core.give_token(OTHER_TAB, HANDLE, Some("it"));
        core.hear(X, &FromServer::Welcome);
        core.lose(X);
        connect_again(&mut core);
    }
    assert_eq!(core.tokens_wanted, [TAB, OTHER_TAB, OTHER_TAB, OTHER_TAB]);
}

/// Goal: what was fetched already is not waited for again. Method: who was asked for a token closes
/// the document before it comes; somebody else still holds it.
#[test]
fn a_token_that_comes_once_its_document_is_closed_is_taken() {
    let mut core = with_tokens();
    core.ask(Call(2), HANDLE, Request::Close);
    core.give_token(TAB, HANDLE, Some("it"));
    let hello = |(_, message): &(String, ToServer)| matches!(message, ToServer::Hello { .. });
    assert!(core.sent.iter().any(hello), "{:?}", core.sent);
}

#[test]
fn a_tab_whose_token_is_refused_bars_no_other_one() {
    let mut core = with_tokens();
    core.give_token(TAB, HANDLE, Some("too old"));
    core.hear(X, &FromServer::Bye { reason: ByeReason::Unauthenticated });
    core.say_from(OTHER_TAB, ToCore::SetConnected { handle: HANDLE, word: 0 });
    core.socket_opens(X);
    assert_eq!(core.tokens_wanted, [TAB, OTHER_TAB]);
}

/// Goal: no other token is waited for where none helps. Method: the server serves no page of this
/// origin, or no client of this version, and the other tab was not asked for its token yet.
#[test]
fn a_sync_does_not_wait_for_a_token_where_the_server_refuses_whoever_asks() {
    for (reason, ends) in
        [(ByeReason::Origin, true), (ByeReason::Version, true), (ByeReason::Unauthenticated, false)]
    {
        let mut core = with_tokens();
        core.welcome(X);
        core.server_opens(X, 1);
        core.ask(Call(3), HANDLE, Request::Sync);
        core.hear(X, &FromServer::Bye { reason: reason.clone() });
        assert_eq!(core.failure_of(Call(3)).is_some(), ends, "{reason:?}");
    }
}

/// Goal: whoever waits until all is in step is not told what passes by itself. Method: a token is
/// refused, and the tab that is asked next has none.
#[test]
fn a_sync_waits_where_a_refused_token_is_followed_by_none() {
    let mut core = with_tokens();
    core.welcome(X);
    core.server_opens(X, 1);
    core.lose(X);
    core.ask(Call(3), HANDLE, Request::Sync);
    connect_again(&mut core);
    let asked = *core.tokens_wanted.last().expect("a tab was asked");
    core.give_token(asked, HANDLE, Some("too old"));
    core.hear(X, &FromServer::Bye { reason: ByeReason::Unauthenticated });
    assert_eq!(core.failure_of(Call(3)), None, "the other tab was not asked yet");
    core.socket_opens(X);
    let other = *core.tokens_wanted.last().expect("a tab was asked");
    assert_ne!(other, asked);
    core.give_token(other, HANDLE, None);
    assert_eq!(core.failure_of(Call(3)), None);
    connect_again(&mut core);
    assert_eq!(core.tokens_wanted.last(), Some(&asked));
    core.give_token(asked, HANDLE, Some("too old"));
    core.hear(X, &FromServer::Bye { reason: ByeReason::Unauthenticated });
    assert_eq!(core.failure_of(Call(3)).map(|it| it.code), Some(ErrorCode::Access));
}

/// Goal: a server that is away is not asked many times a second, whoever waits for it. Method: a
/// token was refused, and no connection opens after that; another tab with one has something
/// pending.
#[test]
fn a_refused_token_has_a_server_that_is_away_tried_once_without_a_pause() {
    let mut core = with_tokens();
    core.give_token(TAB, HANDLE, Some("too old"));
    core.ask(Call(3), HANDLE, Request::Sync);
    core.hear(X, &FromServer::Bye { reason: ByeReason::Unauthenticated });
    let mut tries = 0;
    for _ in 0..100 {
        if core.is_connecting(X) {
            tries += 1;
            core.lose(X);
        }
        core.pass(100);
    }
    assert_eq!(core.failure_of(Call(3)), None, "the other tab was not asked");
    assert!((2..8).contains(&tries), "{tries} times in ten seconds");
}

/// Goal: a server that lets in and then refuses is not tried many times a second, and who waits is
/// told. Method: so it does with the token of each of two tabs, again and again.
#[test]
fn a_server_that_refuses_behind_its_welcome_is_not_tried_without_pauses() {
    let mut core = with_tokens();
    core.ask(Call(3), HANDLE, Request::Sync);
    let mut tries = 0;
    while core.is_connecting(X) && tries < 20 {
        if tries > 0 {
            core.socket_opens(X);
        }
        tries += 1;
        let asked = *core.tokens_wanted.last().expect("a tab was asked");
        core.give_token(asked, HANDLE, Some("it"));
        core.hear(X, &FromServer::Welcome);
        core.hear(X, &FromServer::Bye { reason: ByeReason::Unauthenticated });
        core.pass(0);
    }
    assert!(tries < 3, "{tries} times in no time");
    assert_eq!(core.failure_of(Call(3)).map(|it| it.code), Some(ErrorCode::Access));
}

/// Goal: nobody is told that there is no access while a token is at hand that was never said.
/// Method: a slow token comes while the server looks at that of another tab, which it refuses.
#[test]
fn a_token_that_comes_while_another_one_is_refused_is_said_at_once() {
    let mut core = with_tokens();
    core.ask(Call(3), HANDLE, Request::Sync);
    connect_again(&mut core);
    assert_eq!(core.tokens_wanted, [TAB, OTHER_TAB]);
    core.give_token(OTHER_TAB, HANDLE, Some("old"));
    core.give_token(TAB, HANDLE, Some("good"));
    core.hear(X, &FromServer::Bye { reason: ByeReason::Unauthenticated });
    assert_eq!(core.failure_of(Call(3)), None);
    core.pass(0);
    core.socket_opens(X);
    assert_eq!(core.tokens_sent(X).last(), Some(&Some("good".to_owned())));
    assert_eq!(core.tokens_wanted, [TAB, OTHER_TAB], "nobody is asked again");
    assert_eq!(core.failure_of(Call(3)), None);
    core.hear(X, &FromServer::Bye { reason: ByeReason::Unauthenticated });
    assert_eq!(core.failure_of(Call(3)).map(|it| it.code), Some(ErrorCode::Access));
}

/// The same of two that are slow.
#[test]
fn each_token_that_comes_while_another_one_is_refused_is_said() {
    let mut core = with_tokens();
    let third = TabId(9);
    core.ask_to_open(third, Call(1), HANDLE, "list", Some(X));
    core.ask(Call(3), HANDLE, Request::Sync);
    (0..2).for_each(|_| connect_again(&mut core));
    assert_eq!(core.tokens_wanted, [TAB, OTHER_TAB, third]);
    let give = |core: &mut Core, tab, token: &str| {
        core.give_token(tab, HANDLE, Some(token));
    };
    give(&mut core, third, "bad");
    give(&mut core, TAB, "good");
    give(&mut core, OTHER_TAB, "worse");
    for token in ["bad", "good", "worse"] {
        assert_eq!(core.tokens_sent(X).last(), Some(&Some(token.to_owned())));
        assert_eq!(core.failure_of(Call(3)), None, "{token}");
        core.hear(X, &FromServer::Bye { reason: ByeReason::Unauthenticated });
        core.pass(0);
        if token != "worse" {
            core.socket_opens(X);
        }
    }
    assert_eq!(core.failure_of(Call(3)).map(|it| it.code), Some(ErrorCode::Access));
}

/// Goal: a document is handed over by whoever has a good token, whoever else has none. Method: a
/// tab whose token was refused stays open, and another one offers a document.
#[test]
fn a_refused_token_bars_no_offer_of_a_tab_with_another_one() {
    let mut core = Core::default();
    core.has_token = true;
    core.open_new(Call(1), OTHER, "other", Some(X));
    core.socket_opens(X);
    core.give_token(TAB, OTHER, Some("too old"));
    core.hear(X, &FromServer::Bye { reason: ByeReason::Unauthenticated });
    core.open_new(Call(2), HANDLE, "list", None);
    core.ask_to_open(OTHER_TAB, Call(3), HANDLE, "list", Some(X));
    assert!(core.wakes_now(), "nothing else may happen for long");
    core.pass(0);
    core.socket_opens(X);
    assert_eq!(core.tokens_wanted.last(), Some(&OTHER_TAB));
    assert_eq!(core.failure_of(Call(3)), None);
    core.give_token(OTHER_TAB, HANDLE, Some("old"));
    core.hear(X, &FromServer::Bye { reason: ByeReason::Unauthenticated });
    core.pass(0);
    assert_eq!(core.failure_of(Call(3)).map(|it| it.code), Some(ErrorCode::Access));
}

/// Goal: a token is for the server that its tab has named. Method: a tab whose token function is
/// for one server holds a document, and another tab without one opens it at another server. The
/// token that was asked for before comes late.
#[test]
fn a_token_for_one_server_is_never_sent_to_another() {
    let mut core = Core::default();
    core.has_token = true;
    core.open_new(Call(1), HANDLE, "list", Some(X));
    core.open_new(Call(2), OTHER, "other", Some(X));
    core.socket_opens(X);
    core.has_token = false;
    core.ask_to_open(OTHER_TAB, Call(1), HANDLE, "list", Some(Y));
    core.socket_opens(Y);
    assert_eq!(core.tokens_wanted, [TAB], "at Y nobody has a token");
    assert_eq!(core.tokens_sent(Y), [None]);
    core.give_token(TAB, HANDLE, Some("for x"));
    assert_eq!(core.tokens_sent(Y), [None]);
    assert_eq!(core.tokens_sent(X), [Some("for x".to_owned())]);
}

/// Goal: the word of a tab that was asked before ends no connection for which another one is asked
/// now. Method: the first one is silent for so long that the other one is asked; then it says that
/// it has no token.
#[test]
fn a_tab_that_says_too_late_that_it_has_no_token_bars_no_other_one() {
    let mut core = with_tokens();
    connect_again(&mut core);
    assert_eq!(core.tokens_wanted, [TAB, OTHER_TAB]);
    core.give_token(TAB, HANDLE, None);
    core.give_token(OTHER_TAB, HANDLE, Some("it"));
    assert_eq!(core.tokens_sent(X), [Some("it".to_owned())]);
}

/// The same of a tab that is asked anew itself.
#[test]
fn a_tab_that_says_too_late_that_it_has_no_token_is_heard_once_it_has_one() {
    let mut core = Core::default();
    core.has_token = true;
    core.open_new(Call(1), HANDLE, "list", Some(X));
    core.socket_opens(X);
    connect_again(&mut core);
    assert_eq!(core.tokens_wanted, [TAB, TAB]);
    for token in [None, Some("it")] {
        core.give_token(TAB, HANDLE, token);
    }
    assert_eq!(core.tokens_sent(X), [Some("it".to_owned())]);
}

/// The same where a token let it in meanwhile.
#[test]
fn an_answer_to_what_was_asked_before_a_welcome_bars_no_later_one() {
    let mut core = Core::default();
    core.has_token = true;
    core.open_new(Call(1), HANDLE, "list", Some(X));
    core.socket_opens(X);
    connect_again(&mut core);
    core.give_token(TAB, HANDLE, Some("first"));
    core.hear(X, &FromServer::Welcome);
    core.lose(X);
    connect_again(&mut core);
    assert_eq!(core.tokens_wanted, [TAB; 3]);
    for token in [None, Some("third")] {
        core.give_token(TAB, HANDLE, token);
    }
    assert_eq!(core.tokens_sent(X), [Some("first".to_owned()), Some("third".to_owned())]);
}

/// The same where the app has stayed away meanwhile: as it was asked, or once that was given up.
#[test]
fn an_answer_to_what_was_asked_before_the_app_stayed_away_bars_no_later_one() {
    for is_given_up in [false, true] {
        let mut core = Core::default();
        core.has_token = true;
        core.open_new(Call(1), HANDLE, "list", Some(X));
        core.socket_opens(X);
        if is_given_up {
            core.pass(8_000);
        }
        assert_eq!(core.is_connecting(X), !is_given_up);
        for word in [1, 2] {
            core.say(ToCore::SetConnected { handle: HANDLE, word });
        }
        core.socket_opens(X);
        assert_eq!(core.tokens_wanted, [TAB; 2]);
        for token in [None, Some("it")] {
            core.give_token(TAB, HANDLE, token);
        }
        assert_eq!(core.tokens_sent(X), [Some("it".to_owned())], "{is_given_up}");
    }
}

/// Goal: whose token let us in is asked for the next one, and not passed over for a token that
/// nobody waited for any more. Method: another tab's comes behind the welcome.
#[test]
fn a_token_that_comes_behind_a_welcome_is_not_said_on_the_next_connection() {
    let mut core = with_tokens();
    connect_again(&mut core);
    core.give_token(OTHER_TAB, HANDLE, Some("it"));
    core.hear(X, &FromServer::Welcome);
    core.give_token(TAB, HANDLE, Some("late"));
    core.lose(X);
    connect_again(&mut core);
    assert_eq!(core.tokens_sent(X), [Some("it".to_owned())]);
    assert_eq!(core.tokens_wanted, [TAB, OTHER_TAB, OTHER_TAB]);
}

/// Goal: whoever goes away and comes back, as another user may have done meanwhile, is asked for a
/// token anew. Method: the one from before comes together with the word that it is back.
#[test]
fn a_token_that_was_asked_for_before_the_app_stayed_away_is_not_said_behind_it() {
    let mut core = Core::default();
    core.has_token = true;
    core.open_new(Call(1), HANDLE, "list", Some(X));
    core.socket_opens(X);
    core.say(ToCore::SetConnected { handle: HANDLE, word: 1 });
    let back = ToCore::SetConnected { handle: HANDLE, word: 2 };
    let question = core.take_question(TAB, HANDLE);
    let token = ToCore::Token { question, token: Some("old".to_owned()) };
    core.step(Input::FromTab { tab: TAB, messages: vec![back, token] });
    core.socket_opens(X);
    assert_eq!(core.tokens_sent(X), []);
    assert_eq!(core.tokens_wanted, [TAB; 2]);
}

/// Goal: a token function that takes long gets in all the same, before its server's patience with a
/// connection that says nothing is over. Method: each of two tabs takes ten seconds, by which the
/// connection that it was asked for is given up.
#[test]
fn a_token_that_takes_longer_than_a_connection_is_said_on_the_next_one() {
    let mut core = with_tokens();
    core.pass(8_000);
    core.pass(2_000);
    core.give_token(TAB, HANDLE, Some("slow"));
    core.socket_opens(X);
    assert_eq!(core.tokens_sent(X), [Some("slow".to_owned())]);
    assert_eq!(core.tokens_wanted, [TAB], "nobody else is asked");

    let mut core = with_tokens();
    connect_again(&mut core);
    assert_eq!(core.tokens_wanted, [TAB, OTHER_TAB]);
    core.give_token(TAB, HANDLE, Some("slow"));
    assert_eq!(core.tokens_sent(X), [Some("slow".to_owned())]);
    core.pass(7_000);
    core.hear(X, &FromServer::Welcome);
    core.give_token(OTHER_TAB, HANDLE, Some("late"));
    assert_eq!(core.tokens_sent(X).len(), 1, "it is in");
}

/// The same of the server's part of it: its welcome has a time of its own.
#[test]
fn a_server_has_its_time_for_a_welcome_after_a_token_that_took_long() {
    let mut core = with_tokens();
    core.pass(7_000);
    core.give_token(TAB, HANDLE, Some("slow"));
    core.pass(7_000);
    core.hear(X, &FromServer::Welcome);
    core.pass(7_000);
    assert_eq!(core.tokens_wanted, [TAB], "the connection was kept");
}

/// Goal: no token is said that may have run out meanwhile. Method: one comes too late for its
/// connection, and the next one is there long after that.
#[test]
fn a_token_that_came_long_before_a_connection_is_asked_for_anew() {
    let mut core = with_tokens();
    core.pass(8_000);
    core.give_token(TAB, HANDLE, Some("old"));
    for _ in 0..5 {
        core.pass(8_000);
    }
    core.socket_opens(X);
    assert_eq!(core.tokens_sent(X), []);
    assert_eq!(core.tokens_wanted, [TAB, OTHER_TAB]);
}

/// Goal: whoever owes a token is asked again, though others answer each time that they have none.
#[test]
fn a_tab_that_owes_a_token_is_asked_again_though_another_one_gives_none() {
    let mut core = with_tokens();
    for _ in 0..20 {
        match core.tokens_wanted.last() {
            Some(&OTHER_TAB) => {
                core.give_token(OTHER_TAB, HANDLE, None);
            }
            _ => core.pass(8_000),
        }
        while !core.is_connecting(X) {
            core.pass(1_000);
        }
        core.socket_opens(X);
    }
    let asked = core.tokens_wanted.iter().filter(|tab| **tab == TAB).count();
    assert!(asked > 1, "{:?}", core.tokens_wanted);
}

/// What the tabs give is refused as often as this. Gives the seconds until the last try.
fn is_refused(core: &mut Core, times: u32) -> u64 {
    let mut seconds = 0;
    for _ in 0..times {
        let asked = *core.tokens_wanted.last().expect("somebody is asked");
        core.give_token(asked, HANDLE, Some("stale"));
        core.hear(X, &FromServer::Bye { reason: ByeReason::Unauthenticated });
        seconds = 0;
        while !core.is_connecting(X) {
            core.pass(1_000);
            seconds += 1;
        }
        core.socket_opens(X);
    }
    seconds
}

/// Goal: an app whose tokens are refused is not asked many times a minute, and a tab that comes
/// then is asked soon. Method: two tabs whose tokens are refused, then a third one.
#[test]
fn tokens_that_are_refused_are_asked_for_ever_more_rarely_until_another_tab_comes() {
    let mut core = with_tokens();
    assert!(is_refused(&mut core, 4) <= 40);
    assert!(is_refused(&mut core, 10) >= 150, "up to five minutes");
    let asked = *core.tokens_wanted.last().expect("somebody is asked");
    core.give_token(asked, HANDLE, Some("stale"));
    core.hear(X, &FromServer::Bye { reason: ByeReason::Unauthenticated });
    core.pass(1_000);
    let newcomer = TabId(0);
    core.ask_to_open(newcomer, Call(1), HANDLE, "list", Some(X));
    for _ in 0..10 {
        core.pass(1_000);
    }
    core.socket_opens(X);
    assert_eq!(core.tokens_wanted.last(), Some(&newcomer));
}

/// Five tabs that hold a document, and can be asked for a token.
fn with_five_tabs() -> Core {
    let mut core = with_tokens();
    (50..53).for_each(|tab| core.ask_to_open(TabId(tab), Call(1), HANDLE, "list", Some(X)));
    core
}

/// Goal: whoever has logged in again and calls `connect()` is let in at once, in whichever tab.
/// Method: five tabs whose tokens are refused for long; one of them calls it, whose turn is last,
/// and then has a good token.
#[test]
fn the_tab_that_asks_to_connect_is_asked_for_a_token_first() {
    let mut core = with_five_tabs();
    is_refused(&mut core, 40);
    let last = *core.tokens_wanted.last().expect("somebody is asked");
    core.give_token(last, HANDLE, Some("stale"));
    core.hear(X, &FromServer::Bye { reason: ByeReason::Unauthenticated });
    core.pass(1_000);
    assert!(!core.is_connecting(X), "it rests");
    core.say_from(last, ToCore::SetConnected { handle: HANDLE, word: 0 });
    core.pass(0);
    core.socket_opens(X);
    assert_eq!(core.tokens_wanted.last(), Some(&last));
    core.give_token(last, HANDLE, Some("good"));
    assert_eq!(core.tokens_sent(X).last(), Some(&Some("good".to_owned())));
}

/// The same where others have not had their turn yet since a session has ended.
#[test]
fn the_tab_that_asks_to_connect_comes_before_those_that_were_not_asked_yet() {
    let mut core = with_five_tabs();
    let caller = TabId(52);
    core.give_token(TAB, HANDLE, Some("stale"));
    core.hear(X, &FromServer::Bye { reason: ByeReason::Unauthenticated });
    core.say_from(caller, ToCore::SetConnected { handle: HANDLE, word: 0 });
    core.socket_opens(X);
    assert_eq!(core.tokens_wanted, [TAB, caller]);
}

/// Goal: the pause grows with each round of the tabs, and not with each tab of it: one whose token
/// is good by now has its turn soon.
#[test]
fn a_round_of_tabs_whose_tokens_are_refused_counts_once() {
    let mut core = with_five_tabs();
    for round in 0..4 {
        for _ in 0..5 {
            let seconds = is_refused(&mut core, 1);
            assert!(seconds <= 5 << round, "{seconds} s in round {round}");
        }
    }
    let asked: std::collections::BTreeSet<_> = core.tokens_wanted[15..20].iter().collect();
    assert_eq!(asked.len(), 5, "{:?}", core.tokens_wanted);
    assert!(is_refused(&mut core, 25) >= 150, "up to five minutes");
}

/// Goal: a token that takes long, as where somebody has to log in, is said as soon as it is there.
/// Method: it comes while the way rests, or is about to, since another tab's was refused often.
#[test]
fn a_token_that_comes_while_the_way_rests_is_said_at_once() {
    for is_resting in [true, false] {
        let mut core = with_tokens();
        is_refused(&mut core, 15);
        let slow = *core.tokens_wanted.last().expect("somebody is asked");
        no_token_comes(&mut core);
        let other = *core.tokens_wanted.last().expect("somebody is asked");
        assert_ne!(other, slow);
        let give = |core: &mut Core, tab, token: &str| {
            core.give_token(tab, HANDLE, Some(token));
        };
        give(&mut core, other, "stale");
        if !is_resting {
            give(&mut core, slow, "good");
        }
        core.hear(X, &FromServer::Bye { reason: ByeReason::Unauthenticated });
        if is_resting {
            core.pass(1_000);
            assert!(!core.is_connecting(X), "it rests");
            give(&mut core, slow, "good");
        }
        core.pass(0);
        assert!(core.is_connecting(X), "{is_resting}");
        core.socket_opens(X);
        assert_eq!(core.tokens_sent(X).last(), Some(&Some("good".to_owned())));
    }
}

/// Goal: nobody waits for what a token function never says. Method: a tab owes the answer to one
/// question, and has no token as it is asked again.
#[test]
fn a_tab_that_has_no_token_is_heard_at_once_whatever_it_owes_besides() {
    let mut core = Core::default();
    core.has_token = true;
    core.open_new(Call(1), HANDLE, "list", Some(X));
    core.socket_opens(X);
    connect_again(&mut core);
    assert_eq!(core.tokens_wanted, [TAB, TAB]);
    core.take_question(TAB, HANDLE);
    core.give_token(TAB, HANDLE, None);
    assert!(!core.is_connecting(X), "nothing comes of it");
}

/// Goal: whoever goes away and comes back is asked for a token anew, as above. Method: the one from
/// before comes while the next one is waited for, on a connection that was given up or not.
#[test]
fn a_token_from_before_the_app_stayed_away_is_not_said_in_the_place_of_the_next_one() {
    for is_given_up in [false, true] {
        let mut core = Core::default();
        core.has_token = true;
        core.open_new(Call(1), HANDLE, "list", Some(X));
        core.socket_opens(X);
        if is_given_up {
            core.pass(8_000);
        }
        for word in [1, 2] {
            core.say(ToCore::SetConnected { handle: HANDLE, word });
        }
        core.socket_opens(X);
        core.give_token(TAB, HANDLE, Some("old"));
        assert_eq!(core.tokens_sent(X), [], "{is_given_up}");
        core.give_token(TAB, HANDLE, Some("new"));
        assert_eq!(core.tokens_sent(X), [Some("new".to_owned())], "{is_given_up}");
    }
}

/// Goal: no core takes what another one has asked for what it asks itself. Method: the second core
/// asks as the first one did.
#[test]
fn an_answer_to_what_another_core_has_asked_counts_for_nothing() {
    let [mut dead, mut core] = [1, 2].map(|seed| {
        let mut core = Core::of_seed(seed);
        core.has_token = true;
        core.open_new(Call(1), HANDLE, "list", Some(X));
        core.socket_opens(X);
        core
    });
    let question = dead.take_question(TAB, HANDLE);
    for token in [None, Some("old".to_owned())] {
        core.say(ToCore::Token { question, token });
    }
    assert!(core.is_connecting(X), "it waits for its own");
    core.give_token(TAB, HANDLE, Some("new"));
    assert_eq!(core.tokens_sent(X), [Some("new".to_owned())]);
}

/// The same of a page that was put aside, and is another tab for its core since it is back.
#[test]
fn an_answer_to_what_was_asked_before_a_page_was_put_aside_counts_for_nothing() {
    let mut core = with_tokens();
    let question = core.take_question(TAB, HANDLE);
    core.step(Input::TabClosed { tab: TAB });
    let back = TabId(9);
    core.ask_to_open(back, Call(1), HANDLE, "list", Some(X));
    connect_again(&mut core);
    assert_eq!(core.tokens_wanted, [TAB, OTHER_TAB]);
    core.say_from(back, ToCore::Token { question, token: Some("old".to_owned()) });
    assert_eq!(core.tokens_sent(X), []);
    core.give_token(OTHER_TAB, HANDLE, Some("new"));
    assert_eq!(core.tokens_sent(X), [Some("new".to_owned())]);
}
