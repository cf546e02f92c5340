//! What a world is made of: which of all the things that may go wrong do so in it, and how little
//! its parts can hold.
//!
//! A world in which everything happens hides what needs a few things undisturbed, so each seed
//! draws its own subset (Groce et al., *Swarm Testing*, 2012).

mod access;

use tidelog_types::BudgetLimits;
use tidelog_types::limits::{LOG_BUFFER_SIZE_MAX, Limits};

use crate::rng::Rng;

/// One in so many worlds has servers that ask for tokens.
const GUARDED_ONCE_IN: u64 = 12;

/// How far the clocks of devices go wrong in worlds with commands and runs: ahead of those of
/// servers every third time, and behind them every third time of the others.
const YEAR_MS: u64 = 365 * 24 * 3_600_000;

/// Pages that a migration changes which makes the tables of tasks.
const TASK_PAGES_MIN: usize = 64;

/// What a world may have of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    /// Commands.
    WithTasks,
    /// Commands, and runs of a workflow.
    WithRuns,
}

/// The features of one world.
#[derive(Clone, Debug)]
pub(crate) struct Swarm {
    /// Devices at the beginning, and actions of their tabs while things go wrong.
    pub(crate) devices: usize,
    pub(crate) actions: u64,
    /// Each device has a local document that stays so.
    pub(crate) diaries: bool,
    /// When all is well again, work goes on.
    pub(crate) goes_on: bool,
    /// In the end the power of all devices is cut.
    pub(crate) is_cut_last: bool,
    /// At the very end everybody lets go of everything, and deletes it.
    pub(crate) is_left_last: bool,
    pub(crate) limits: Limits,
    pub(crate) log_size_max: u64,
    /// Beyond which size a log is changed over at rest.
    pub(crate) log_rest_size_max: u64,
    /// Pages in the buffer pools of stores.
    pub(crate) store_pool_pages: usize,
    /// Bytes of entries that may wait for one connection.
    pub(crate) way_size_max: usize,
    /// Milliseconds that a message over the net takes at most.
    pub(crate) net_ms_max: u64,
    /// A second document on the first server, and one on a server of its own.
    pub(crate) second_document: bool,
    pub(crate) second_server: bool,
    /// Local documents that are opened with a server later.
    pub(crate) drafts: bool,
    /// Handles are closed and opened again.
    pub(crate) closing: bool,
    /// Local copies are deleted.
    pub(crate) destroying: bool,
    /// The action before which a new release of the app comes.
    pub(crate) release_at: Option<u64>,
    /// Tabs take documents out as files while things change.
    pub(crate) exports: bool,
    /// Mutations with large bodies, and such as meet the budgets.
    pub(crate) large: bool,
    pub(crate) heavy: bool,
    /// Tabs can be asked for a token.
    pub(crate) tokens: bool,
    /// All tabs but a device's last are silent when they are.
    pub(crate) silent_tabs: bool,
    /// They have none every other time.
    pub(crate) flaky_tokens: bool,
    /// Stores answer late and a slice at a time.
    pub(crate) late_stores: bool,
    /// Flushes are complete when they return, as on the files of a browser.
    pub(crate) flushes_at_once: bool,
    /// The devices' clocks go wrong by so much at most, in milliseconds.
    pub(crate) skew_ms_max: u64,
    /// How far the clocks of servers are ahead from the beginning, in milliseconds.
    pub(crate) servers_ahead_ms: u64,
    /// What goes wrong, each as often as it stands here.
    pub(crate) troubles: Vec<Trouble>,
    /// Bytes of appends that a store keeps in memory before it writes them out.
    pub(crate) log_buffer_size_max: usize,
    /// Every device's draft has the same name: one of them becomes the server's.
    pub(crate) rivals: bool,
    /// Many mutations claim what others claim at that time.
    pub(crate) contended: bool,
    /// Whenever something is confirmed on one device, others want to see it at once.
    pub(crate) syncs_at_once: bool,
    /// Tabs have a second live query, of rows that seldom change.
    pub(crate) watches_claims: bool,
    /// Tabs watch what fails for what is in the document.
    pub(crate) watches_fragile: bool,
    /// Mutations write rows that lie far apart, and tabs have a live query of some of those.
    pub(crate) cells: bool,
    /// When nothing goes wrong any more, one device is cut off for a while longer.
    pub(crate) heals_late: bool,
    /// That device has much to send when it comes back, one by one, and the others go on meanwhile.
    pub(crate) drains: bool,
    /// Documents are full, of verdicts too, after a few large mutations.
    pub(crate) fills: bool,
    /// What cores ask of a page server may be long under way, and many are killed, some at once.
    pub(crate) hasty: bool,
    /// What happens to whole stores, each before an action.
    pub(crate) history: Vec<(u64, History)>,
    /// Rooms give back what they can whenever they have done something.
    pub(crate) rooms_rest: bool,
    /// Rooms gather what they decide over some steps, and what has come goes before that.
    pub(crate) rooms_gather: bool,
    /// Milliseconds that a core which has more to do needs for a slice of it, at most: something
    /// else comes between.
    pub(crate) core_slice_ms_max: u64,
    /// Whoever looks for another core may find none that says a word for many seconds.
    pub(crate) slow_welcomes: bool,
    /// What rots is the log of a store, and not its pages.
    pub(crate) logs_rot: bool,
    /// A browser may give no answer to a tab that looks for a core.
    pub(crate) mute_browsers: bool,
    /// Who is about to be closed says once more whether to stay away from servers.
    pub(crate) last_words: bool,
    /// Of cells that are longer than a page the ends are written, and watched.
    pub(crate) long_cells: bool,
    /// How often the power goes as soon as something was called durable, confirmed or handed over.
    pub(crate) cuts_at_word: u32,
    /// Tabs write to all documents that they hold at once, and stores keep few appends.
    pub(crate) side_by_side: bool,
    /// Servers ask for tokens, which name a user, allow something, and are good for a while: so
    /// many milliseconds, unless something else is said of them.
    pub(crate) guarded: bool,
    pub(crate) token_ms: u64,
    /// All devices are one user's.
    pub(crate) one_user: bool,
    /// Whether tabs send commands, and start runs, and some of them handle these.
    pub(crate) kind: Kind,
}

/// Something that happens to a whole store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum History {
    /// An operator deletes a document on a server.
    DeleteOnServer,
    /// A copy of a server's store is made. The store may rot right after that.
    BackUpServer {
        rots: bool,
    },
    /// The copy takes the place of the store.
    RestoreServer,
    /// A server's store is lost: an empty one takes its place.
    ReplaceServer,
    /// The same with the store of a device.
    CopyDevice,
    RollDeviceBack,
    /// Another device begins with a copy of a device's store.
    CloneDevice,
    /// A page on a device is not what was written.
    RotDevice,
    /// The data of a device are cleared while its tabs and its core live.
    ClearDevice,
    /// A document becomes so full that there is no room for verdicts.
    FillDocument,
    /// A server goes back twice while a device and its clone have something to send.
    MoveTwice,
    /// A server goes back while a device is cut off, which wants to be in step when it is back.
    SyncBehind,
    /// A document is handed over, the answer is lost, and another device writes to it.
    LoseSeeded,
    /// All hand over their documents of the same name.
    Rivals,
    /// Files are taken out while a log is changed over again and again.
    ExportAmid,
    /// A tab is away when it would hear that there was no room for what it issued.
    FailUnheard,
    /// The tab that hands a document over is closed, and another one works on.
    CloseOffering,
    /// Whoever hands a document over gets to the same part of it each time.
    BreakOffering,
    /// A tab of a new release opens a document that is amid a rebase.
    ReleaseAmid,
    /// Tabs say in turns whether a document is to stay away from its server, and its core dies.
    SayAgain,
    /// There is no room for what one document wrote, and the page server goes before it has what
    /// another one wrote after that.
    FailAmid,
    /// A server goes back to before what it has acknowledged, and told nobody of.
    LoseAcked,
    /// A machine is put back while its core runs, which goes on as the same life.
    PutMachineBack,
    /// A tab asks again for what was recorded long ago.
    ForgetCalls,
    /// A tab asks again for a deletion.
    DeleteTwice,
    /// A tab is suspended before it hears of a deletion, and then its time is up.
    SleepOnDeletion,
    /// A tab names another server, which has a document of that name too.
    MeetNamesake,
    /// A server lets nobody in, and does so again after a while.
    BarOut,
    /// Copies of a device bring the same mutations in turns, each on a timeline of its own.
    PartCopies,
    /// What two copies of a device have to send is rejected, and one of them has heard so.
    RejectCopies,
    /// A server refuses the token of one tab, and not those of others.
    RefuseToken,
    /// A tab that waits for nothing cannot reach the core that comes after its own.
    TurnAway,
    /// A tab opens a document while that is being deleted.
    OpenBehindDeletion,
    /// The tab that lends is closed while the one that is next in line is blocked.
    BlockNext,
    /// Two devices get another release each, of which neither succeeds the other.
    ForkReleases,
    /// The tokens of a device do not allow to write any more, and then they do again.
    Demote,
    /// Tokens are good for seconds, and tabs have none now and then, or are silent.
    Expire,
    /// Tokens are withdrawn, or the key is lost that has signed them.
    Revoke,
    /// Tabs give tokens of another user.
    OtherUser,
    /// A copy is begun, and written to, before it is known whose it is.
    BeginOffline,
    /// The clock of a server that asks for tokens is an hour off from that of who issues them.
    ClockOff,
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    OpenTab,
    CloseTab,
    KillCore,
    /// A second core takes the page server over while the first one still has requests under way.
    SecondCore,
    PowerCut,
    DeviceFull,
    /// A call of the device's disk fails, once.
    DeviceFails,
    /// The tab that lends the page server is frozen.
    FrozenLender,
    ServerPowerCut,
    ServerFull,
    ServerFails,
    /// A room in which nobody is leaves the memory.
    Retire,
    Cut,
    Silence,
    OneWaySilence,
    SlowReader,
    /// A tab hears nothing for a while, not even that its core is gone.
    BusyTab,
    TimePasses,
    /// The page server's worker breaks, and others may not load.
    WorkerBreaks,
    /// A server goes down as an operator stops it, and says so.
    ServerStops,
    /// A tab thinks that its device has just come online.
    Nudge,
    /// A tab asks for what cannot be.
    Mistake,
    /// A tab goes where it can hold nothing, and comes back to the same core.
    HideTab,
    /// A server lets nobody in for a while.
    ServerBars,
}

/// What was added when worlds were there already: it is drawn apart.
const MORE_TROUBLES: [Trouble; 6] = [
    Trouble::WorkerBreaks,
    Trouble::ServerStops,
    Trouble::Nudge,
    Trouble::Mistake,
    Trouble::HideTab,
    Trouble::ServerBars,
];

/// Whatever may go wrong at all.
const TROUBLES: [Trouble; 17] = [
    Trouble::OpenTab,
    Trouble::CloseTab,
    Trouble::KillCore,
    Trouble::SecondCore,
    Trouble::PowerCut,
    Trouble::DeviceFull,
    Trouble::DeviceFails,
    Trouble::FrozenLender,
    Trouble::ServerPowerCut,
    Trouble::ServerFull,
    Trouble::ServerFails,
    Trouble::Retire,
    Trouble::Cut,
    Trouble::Silence,
    Trouble::OneWaySilence,
    Trouble::SlowReader,
    Trouble::TimePasses,
];

impl History {
    fn takes_server_back(self) -> bool {
        matches!(
            self,
            Self::RestoreServer
                | Self::ReplaceServer
                | Self::DeleteOnServer
                | Self::MoveTwice
                | Self::LoseAcked
                | Self::SyncBehind
        )
    }

    fn rots(self) -> bool {
        matches!(self, Self::RotDevice | Self::BackUpServer { rots: true })
    }

    fn parts_device(self) -> bool {
        matches!(
            self,
            Self::RollDeviceBack
                | Self::CloneDevice
                | Self::MoveTwice
                | Self::PutMachineBack
                | Self::PartCopies
                | Self::RejectCopies
        )
    }
}

impl Swarm {
    pub(crate) fn draw(rng: &mut Rng, seed: u64, kind: Kind) -> Self {
        // Most worlds are small: many short runs find more than a few long ones.
        let mut size = Rng::new(seed.rotate_left(48) ^ seed);
        let actions = [4, 6, 8, 10, 12, 16][size.index(6)];
        let devices = [2, 2, 3][size.index(3)];
        let limits = if rng.once_in(3) { Limits::DEFAULT } else { shrunk(rng) };
        let mut troubles = vec![Trouble::TimePasses];
        for trouble in TROUBLES {
            if rng.once_in(2) {
                let times = 1 + rng.below(3);
                troubles.extend((0..times).map(|_| trouble));
            }
        }
        // Drawn apart: worlds without any of this are what they were.
        let mut apart = Rng::new(!seed);
        let history = history(&mut apart, actions);
        let mut aside = Rng::new(seed.rotate_left(32) ^ !seed);
        let limits = if apart.once_in(6) { shrunk_more(limits, &mut apart) } else { limits };
        let mut lives = Rng::new(seed.rotate_left(24) ^ !seed);
        let mut beside = Rng::new(seed.rotate_left(16) ^ seed);
        let mut around = Rng::new(seed.rotate_left(56) ^ !seed);
        let mut at_rest = Rng::new(seed.rotate_left(48) ^ seed);
        let is_forgetful = beside.once_in(4);
        let limits = if is_forgetful { forgetful(limits, &mut beside) } else { limits };
        let mut swarm = Self {
            devices,
            actions,
            diaries: size.once_in(4),
            goes_on: size.once_in(4),
            is_cut_last: size.once_in(4),
            is_left_last: size.once_in(2),
            limits,
            log_size_max: [16 << 20, 128 << 10, 48 << 10][rng.index(3)],
            log_rest_size_max: [16 << 20, 32 << 10][at_rest.index(2)],
            store_pool_pages: [8, 1024][rng.index(2)],
            way_size_max: [1 << 30, 24 * 1024][rng.index(2)],
            net_ms_max: [3, 80, 400][rng.index(3)],
            second_document: rng.once_in(7),
            second_server: rng.once_in(10),
            drafts: rng.once_in(2),
            closing: rng.once_in(3),
            destroying: rng.once_in(3),
            release_at: if rng.once_in(2) { Some(rng.below(actions)) } else { None },
            exports: around.once_in(3),
            large: rng.once_in(3),
            heavy: rng.once_in(3),
            tokens: rng.once_in(4),
            late_stores: rng.once_in(2),
            flushes_at_once: rng.once_in(4),
            skew_ms_max: if rng.once_in(3) { 3_600_000 } else { 0 },
            servers_ahead_ms: 0,
            troubles,
            log_buffer_size_max: if apart.once_in(3) { 16 << 10 } else { LOG_BUFFER_SIZE_MAX },
            rivals: apart.once_in(3),
            syncs_at_once: aside.once_in(3),
            watches_claims: aside.once_in(3),
            watches_fragile: false,
            cells: around.once_in(3),
            heals_late: apart.once_in(6),
            contended: apart.once_in(3) || is_forgetful,
            drains: apart.once_in(8),
            fills: false,
            hasty: lives.once_in(4),
            history,
            rooms_rest: false,
            rooms_gather: false,
            silent_tabs: false,
            flaky_tokens: false,
            core_slice_ms_max: 0,
            slow_welcomes: false,
            mute_browsers: false,
            last_words: false,
            long_cells: false,
            cuts_at_word: 0,
            side_by_side: false,
            logs_rot: false,
            guarded: false,
            token_ms: 0,
            one_user: false,
            kind: Kind::Plain,
        };
        let mut askew = Rng::new(seed.rotate_left(8) ^ !seed);
        swarm.rooms_rest = askew.once_in(3);
        swarm.silent_tabs = swarm.tokens && askew.once_in(2);
        swarm.flaky_tokens = swarm.tokens && askew.once_in(2);
        swarm.watches_fragile = seed % 4 == 1;
        swarm.core_slice_ms_max = [0, 4, 40, 150][askew.index(4)];
        for trouble in MORE_TROUBLES {
            if askew.once_in(4) {
                // What is not durable yet is seldom met by what is hidden.
                let times = if trouble == Trouble::HideTab { 5 } else { 2 };
                swarm.troubles.extend(std::iter::repeat_n(trouble, times));
            }
        }
        let mut within = Rng::new(seed.rotate_left(40) ^ seed);
        if within.once_in(3) {
            swarm.limits.layer_pages_max = [1, 8, 24][within.index(3)];
        }
        if within.once_in(4) {
            // What comes where so little may wait fails, also when all is well.
            swarm.limits.owner_waiting_size_max = [1, 20_000][within.index(2)];
            (swarm.goes_on, swarm.heals_late) = (false, false);
            // Much comes in parts while something is slow.
            swarm.limits.append_part_pages_max = 1 + within.index(3);
            swarm.limits.slice = BudgetLimits::SMALLEST;
            (swarm.large, swarm.late_stores) = (true, true);
            swarm.log_size_max = 48 << 10;
        }
        let mut abreast = Rng::new(seed.rotate_left(6) ^ !seed);
        if abreast.once_in(8) {
            swarm.side_by_side = true;
            swarm.limits.owner_appends_max = 1 + abreast.index(3);
            // What there is no room for fails, also when all is well.
            (swarm.goes_on, swarm.heals_late, swarm.is_left_last) = (false, false, false);
            // What is local has pages, which are sent ahead of it, behind what another one writes.
            swarm.limits.append_part_pages_max = 1;
            (swarm.diaries, swarm.drafts, swarm.late_stores) = (true, true, true);
        }
        // A tab would hold a local document that its server has taken over and nobody knows of.
        if aside.once_in(8) && !swarm.drafts {
            swarm.history.push((aside.below(actions), History::ClearDevice));
        }
        if beside.once_in(8) && swarm.history.is_empty() {
            swarm.history.push((beside.below(actions), History::MoveTwice));
            // One by one: some are decided before the server goes back again, and some are not.
            swarm.limits.frames_in_flight_size_max = 1;
        }
        let parts_copies = around.once_in(8) && swarm.history.is_empty();
        if parts_copies {
            swarm.history.push((around.below(actions), History::PartCopies));
            swarm.limits.frames_in_flight_size_max = 1;
        } else if around.once_in(24) && swarm.history.is_empty() {
            swarm.history.push((around.below(actions), History::RejectCopies));
        }
        if swarm.rots() {
            swarm.logs_rot = askew.once_in(2);
            swarm.store_pool_pages = 8;
            // Only what left the log and the memory can rot unseen, and what is in a log is missed.
            swarm.log_size_max = if swarm.logs_rot { 16 << 20 } else { 48 << 10 };
            swarm.log_rest_size_max = swarm.log_size_max;
        }
        if is_forgetful && beside.once_in(2) {
            // A store forgets when its log changes over.
            swarm.log_size_max = 48 << 10;
        }
        if swarm.destroying {
            // A deletion seldom meets a disk that fails.
            swarm.troubles.extend([Trouble::DeviceFails; 3]);
        }
        if swarm.hasty {
            // What one core says last meets what the next one says first.
            swarm.troubles.extend([Trouble::SecondCore; 4]);
        }
        swarm.drains &= swarm.heals_late;
        if swarm.drains {
            // Where waiting is short, a rebase is put off until it is worth its runs.
            swarm.limits.frames_in_flight_size_max = 1;
            (swarm.net_ms_max, swarm.flushes_at_once, swarm.late_stores) = (3, true, false);
        }
        // What a store goes back to is no draft of anybody where the server has one of that name.
        swarm.rivals &= swarm.history.is_empty();
        // What a full document has no room for is not a newer release, which all wait for.
        let is_narrow = swarm.release_at.is_none() && !swarm.cells && !parts_copies;
        swarm.fills = aside.once_in(4) && is_narrow;
        if swarm.fills {
            swarm.limits.document_pages_max = [32, 48][aside.index(2)];
            // Whoever makes room may touch it all.
            swarm.limits.mutation_pages_max = Limits::DEFAULT.mutation_pages_max;
            swarm.limits.statement_steps_max = Limits::DEFAULT.statement_steps_max;
            swarm.limits.verdict_pages_max = [0, 1][aside.index(2)];
            swarm.history.push((aside.below(actions), History::FillDocument));
        }
        if !swarm.history.is_empty() {
            // So that there is something to lose, and to do with what is left.
            swarm.actions = swarm.actions.max(12);
        }
        if swarm.history.is_empty() {
            swarm.come_back(&mut lives);
        }
        let mut later = Rng::new(seed.rotate_left(24) ^ !seed);
        if swarm.history.is_empty() {
            swarm.meet(&mut later);
        }
        if later.once_in(4) {
            // A document that is handed over waits for what the server has taken of it.
            let few = swarm.limits.catch_up_pages.min(4 + later.index(8));
            (swarm.limits.catch_up_pages_max, swarm.limits.seed_pages_ahead_max) = (few, few);
            swarm.limits.message_pages_max = swarm.limits.message_pages_max.min(3);
        }
        let mut last = Rng::new(seed.rotate_left(40) ^ !seed);
        // Nothing of this asks what became of a document that its server has lost.
        let bears_deletion = |(_, it): &(u64, History)| {
            matches!(it, History::ExportAmid | History::FailAmid | History::SayAgain)
        };
        let times = if swarm.history.is_empty() { 2 } else { 3 };
        if swarm.history.iter().all(bears_deletion) && !swarm.rivals && last.once_in(times) {
            swarm.history.push((last.below(swarm.actions), History::DeleteOnServer));
        }
        // Those who meet, or come back, are to be there.
        let may_go = |(_, it): &(u64, History)| {
            matches!(it, History::LoseSeeded | History::CloseOffering | History::FailAmid)
        };
        if askew.once_in(3) && swarm.history.iter().all(may_go) {
            swarm.cuts_at_word = 3;
        }
        if lives.once_in(4) {
            swarm.troubles.extend([Trouble::BusyTab; 2]);
        }
        if lives.once_in(6) {
            swarm.limits.tab_unheard_size_max = [4 << 10, 16 << 10][lives.index(2)];
        }
        if swarm.rivals && swarm.drafts {
            // What they hand over at the same time comes in turns.
            swarm.limits.message_pages_max = 1;
            swarm.history.push((later.below(swarm.actions), History::Rivals));
        }
        if askew.once_in(12) && swarm.is_calm() {
            swarm.diaries = true;
            swarm.history.push((askew.below(swarm.actions), History::SleepOnDeletion));
        }
        let mut rare = Rng::new(seed.rotate_left(20) ^ !seed);
        if rare.once_in(4) && swarm.is_calm() {
            swarm.go_where_few_come(&mut rare);
        }
        let mut seldom = Rng::new(seed.rotate_left(28) ^ !seed);
        if seldom.once_in(3) && swarm.is_calm() {
            swarm.keep_waiting(&mut seldom);
        } else if seldom.once_in(6) && swarm.is_calm() {
            swarm.slow_welcomes = true;
            swarm.troubles.extend([Trouble::KillCore; 3]);
        }
        let mut old = Rng::new(seed.rotate_left(36) ^ !seed);
        if old.once_in(4) && !swarm.devices_part() {
            // As if more cores had written than there are. Of copies of a device nobody could tell.
            swarm.limits.timeline_lives_kept_max = 1 + old.index(2);
            swarm.troubles.extend([Trouble::KillCore; 3]);
        }
        let mut new = Rng::new(seed.rotate_left(12) ^ !seed);
        swarm.mute_browsers = new.once_in(8) && swarm.is_calm();
        swarm.long_cells = swarm.cells && !swarm.fills && new.once_in(2);
        swarm.last_words = new.once_in(6);
        if swarm.last_words {
            // Somebody is there who has heard them.
            swarm.troubles.extend([Trouble::OpenTab, Trouble::CloseTab].repeat(2));
        }
        if is_forgetful && new.once_in(2) {
            // Who has enough to hear is told what is about to be forgotten.
            swarm.limits.tab_unheard_size_max = 4 << 10;
            swarm.troubles.extend([Trouble::BusyTab; 2]);
        }
        swarm.rooms_gather = Rng::new(seed.rotate_left(60) ^ !seed).once_in(4);
        let mut parts = Rng::new(seed.rotate_left(44) ^ !seed);
        if parts.once_in(24) {
            swarm.history = vec![(parts.below(swarm.actions), History::BreakOffering)];
            (swarm.drafts, swarm.rivals, swarm.limits.message_pages_max) = (true, false, 1);
            // Not all of it is on its way before the first part is taken.
            let few = swarm.limits.catch_up_pages.min(2);
            swarm.limits.catch_up_pages = few;
            (swarm.limits.catch_up_pages_max, swarm.limits.seed_pages_ahead_max) = (few, few);
            (swarm.release_at, swarm.fills, swarm.drains, swarm.logs_rot) =
                (None, false, false, false);
            swarm.limits.document_pages_max = Limits::DEFAULT.document_pages_max;
        }
        if swarm.limits.rejections_kept_max < Limits::DEFAULT.rejections_kept_max
            && swarm.limits.tab_unheard_size_max < Limits::DEFAULT.tab_unheard_size_max
        {
            // Who has one large rejection to hear misses those that are forgotten meanwhile.
            swarm.large = false;
        }
        let mut beside_each_other = Rng::new(seed.rotate_left(4) ^ seed);
        if beside_each_other.once_in(4) {
            swarm.limits.pools_pages_max = beside_each_other.index(12);
        }
        let mut forked = Rng::new(seed.rotate_left(12) ^ seed);
        if forked.once_in(24) {
            // Nothing of it may look like what a store that goes back does.
            swarm.history = vec![(forked.below(swarm.actions), History::ForkReleases)];
            (swarm.release_at, swarm.fills, swarm.rivals, swarm.drains) =
                (None, false, false, false);
            (swarm.logs_rot, swarm.limits.document_pages_max) =
                (false, Limits::DEFAULT.document_pages_max);
        }
        let mut undecided = Rng::new(seed.rotate_left(52) ^ seed);
        if undecided.once_in(6) && swarm.is_calm() {
            swarm.limits.undecided_size_max = [1, 2_000][undecided.index(2)];
            (swarm.goes_on, swarm.heals_late) = (false, false);
        }
        if swarm.long_cells && (swarm.release_at.is_some() || swarm.forks()) {
            // A release writes to every cell, whatever that takes.
            swarm.limits.mutation_pages_max = Limits::DEFAULT.mutation_pages_max;
        }
        let mut blocked = Rng::new(seed.rotate_left(60) ^ seed);
        if blocked.once_in(12) {
            swarm.history.push((blocked.below(actions), History::BlockNext));
        }
        let mut access = Rng::new(seed.rotate_left(18) ^ seed);
        if access.once_in(GUARDED_ONCE_IN) {
            swarm.ask_for_tokens(&mut access);
            let mut clocks = Rng::new(seed.rotate_left(22) ^ !seed);
            if clocks.once_in(3) {
                swarm.history.push((clocks.below(actions), History::ClockOff));
            }
        }
        // All that is drawn for them is drawn apart: other worlds are what they would be without.
        // A document that is full of little has no room for what they need.
        // Nor can anybody tell where a machine that was put back has written as much as before.
        let is_put_back = swarm.history.iter().any(|(_, it)| *it == History::PutMachineBack);
        if !swarm.guarded && !swarm.fills && !is_put_back {
            swarm.kind = kind;
        }
        if swarm.has_tasks() {
            let pages_max = &mut swarm.limits.mutation_pages_max;
            *pages_max = TASK_PAGES_MIN.max(*pages_max);
            let mut clocks = Rng::new(seed.rotate_left(38) ^ !seed);
            if clocks.once_in(3) {
                swarm.skew_ms_max = YEAR_MS;
            } else if clocks.once_in(3) {
                swarm.servers_ahead_ms = YEAR_MS;
            }
        }
        if swarm.has_runs() {
            let mut runs = Rng::new(seed.rotate_left(10) ^ !seed);
            // More of them, to hand over to each other.
            swarm.devices = swarm.devices.max(2 + runs.index(2));
        }
        swarm
    }

    /// Whether there are commands.
    pub(crate) fn has_tasks(&self) -> bool {
        self.kind != Kind::Plain
    }

    /// Whether there are runs of a workflow.
    pub(crate) fn has_runs(&self) -> bool {
        self.kind == Kind::WithRuns
    }

    /// Whether nothing happens to its stores but what this can happen beside.
    fn is_calm(&self) -> bool {
        let is_calm = |(_, it): &(u64, History)| {
            matches!(
                it,
                History::ExportAmid
                    | History::FailAmid
                    | History::SayAgain
                    | History::ForgetCalls
                    | History::DeleteTwice
                    | History::SleepOnDeletion
                    | History::ReleaseAmid
                    | History::Rivals
                    | History::BarOut
            )
        };
        !self.fills && !self.drains && self.history.iter().all(is_calm)
    }

    /// Draws what is entered only within a few milliseconds, and so by chance in hardly any world.
    fn go_where_few_come(&mut self, rng: &mut Rng) {
        let at = rng.below(self.actions);
        self.cuts_at_word = 0;
        if rng.once_in(2) {
            self.history.clear();
            (self.rivals, self.drafts) = (true, true);
            self.limits.message_pages_max = 1;
            return self.history.push((at, History::Rivals));
        }
        self.diaries = true;
        self.history.push((at, History::FailUnheard));
    }

    /// Draws what makes a tab wait, or try again, beside whatever else happens.
    fn keep_waiting(&mut self, rng: &mut Rng) {
        let at = rng.below(self.actions);
        let all = [History::RefuseToken, History::TurnAway, History::OpenBehindDeletion];
        let history = all[rng.index(all.len())];
        self.history.push((at, history));
        match history {
            History::RefuseToken => {
                (self.tokens, self.silent_tabs, self.flaky_tokens) = (true, false, false);
            }
            History::OpenBehindDeletion => self.diaries = true,
            _ => {}
        }
    }

    /// Draws what somebody takes for something else, or does not remember, in few worlds.
    fn come_back(&mut self, rng: &mut Rng) {
        let history = match rng.below(16) {
            0 => History::LoseAcked,
            1 => History::PutMachineBack,
            2..=4 => History::ForgetCalls,
            5 => History::DeleteTwice,
            _ => return,
        };
        self.history.push((rng.below(self.actions), history));
        // What is put back is no draft of anybody where the server has one of that name.
        self.rivals = false;
        match history {
            History::LoseAcked => {
                self.limits.entries_in_flight_max = 1;
                self.net_ms_max = self.net_ms_max.min(80);
            }
            History::ForgetCalls => {
                self.limits.calls_remembered_max = 2;
                self.limits.calls_kept_max = Limits::DEFAULT.calls_kept_max;
            }
            // A core that dies before it has written down that nobody can tell leaves nothing to
            // the next one by which that could.
            History::PutMachineBack => self.contended = false,
            History::DeleteTwice => self.diaries = true,
            _ => {}
        }
    }

    /// Draws what happens only where a few things meet.
    fn meet(&mut self, rng: &mut Rng) {
        let history = match rng.below(10) {
            0 | 9 => History::SyncBehind,
            1 => History::LoseSeeded,
            2 => History::ExportAmid,
            3 => History::CloseOffering,
            4 => History::FailAmid,
            5 => History::ReleaseAmid,
            6 => History::SayAgain,
            7 => History::MeetNamesake,
            8 => History::BarOut,
            _ => return,
        };
        let at = rng.below(self.actions);
        self.history.push((at, history));
        // Who drains has enough to run again.
        (self.rivals, self.drains) = (false, false);
        match history {
            // What a probe is answered with comes before the pages.
            History::SyncBehind => {
                (self.limits.catch_up_pages, self.limits.read_chunk_pages) = (1, 1);
                (self.net_ms_max, self.late_stores) = (80, true);
            }
            History::LoseSeeded | History::CloseOffering => self.drafts = true,
            History::FailAmid => self.diaries = true,
            History::SayAgain | History::BarOut => {}
            // Slow slices of many mutations that are long under way.
            History::ReleaseAmid => {
                self.release_at = Some(at);
                self.limits.slice = BudgetLimits::SMALLEST;
                (self.net_ms_max, self.core_slice_ms_max) = (400, 150);
            }
            // Whoever has deleted what it had takes what there is.
            History::MeetNamesake => self.destroying = false,
            _ => {
                (self.limits.pool_pages_max, self.limits.read_chunk_pages) = (4, 1);
                self.limits.mutation_pages_max = Limits::DEFAULT.mutation_pages_max;
                (self.log_size_max, self.store_pool_pages) = (48 << 10, 8);
                self.late_stores = true;
            }
        }
    }

    /// Whether a server may lose what it had confirmed.
    pub(crate) fn servers_go_back(&self) -> bool {
        self.history.iter().any(|(_, it)| it.takes_server_back())
    }

    /// Whether an app may name a server that has another document of that name.
    pub(crate) fn meets_namesakes(&self) -> bool {
        self.history.iter().any(|(_, it)| *it == History::MeetNamesake)
    }

    /// Whether a server may let nobody in for a while, or not those who have no token.
    pub(crate) fn bars(&self) -> bool {
        let is_barred =
            |(_, it): &(u64, History)| matches!(it, History::BarOut | History::RefuseToken);
        self.guarded
            || self.flaky_tokens
            || self.troubles.contains(&Trouble::ServerBars)
            || self.history.iter().any(is_barred)
    }

    /// Whether there are releases of which neither succeeds the other.
    pub(crate) fn forks(&self) -> bool {
        self.history.iter().any(|(_, it)| *it == History::ForkReleases)
    }

    /// Whether what lies on a disk may be damaged.
    pub(crate) fn rots(&self) -> bool {
        self.history.iter().any(|(_, it)| it.rots())
    }

    /// Whether there are several states of one device.
    pub(crate) fn devices_part(&self) -> bool {
        self.history.iter().any(|(_, it)| it.parts_device())
    }
}

/// What happens to stores: nothing in most worlds, and seldom more than one thing.
fn history(rng: &mut Rng, actions: u64) -> Vec<(u64, History)> {
    let mut history = Vec::new();
    let mut twice = |rng: &mut Rng, first, second| {
        let at = rng.below(actions - 1);
        history.push((at, first));
        history.push((at + 1 + rng.below(actions - 1 - at), second));
    };
    if rng.once_in(6) {
        let rots = rng.once_in(2);
        twice(rng, History::BackUpServer { rots }, History::RestoreServer);
    }
    if rng.once_in(8) {
        twice(rng, History::CopyDevice, History::RollDeviceBack);
    }
    let singles =
        [(8, History::CloneDevice), (8, History::RotDevice), (12, History::ReplaceServer)];
    for (times, single) in singles {
        if rng.once_in(times) {
            history.push((rng.below(actions), single));
        }
    }
    history
}

/// The same of what is remembered.
fn shrunk_more(limits: Limits, rng: &mut Rng) -> Limits {
    let calls_kept_max = [1, 3, limits.calls_kept_max][rng.index(3)];
    let rejections_kept_max = [1, limits.rejections_kept_max][rng.index(2)];
    Limits { calls_kept_max, rejections_kept_max, ..limits }
}

/// The same of what a core remembers of mutations that are decided.
fn forgetful(limits: Limits, rng: &mut Rng) -> Limits {
    Limits {
        calls_remembered_max: [2, 8, limits.calls_remembered_max][rng.index(3)],
        calls_kept_max: [1, 3, limits.calls_kept_max][rng.index(3)],
        rejections_kept_max: [1, 2, limits.rejections_kept_max][rng.index(3)],
        handled_rejections_kept_max: rng.index(2),
        ..limits
    }
}

/// So little of some things that a short run meets the bound.
fn shrunk(rng: &mut Rng) -> Limits {
    let mut limits = Limits::DEFAULT;
    let mut some = |bound: &mut usize, small: &[usize]| {
        if rng.once_in(2) {
            *bound = small[rng.index(small.len())];
        }
    };
    some(&mut limits.pool_pages_max, &[0, 4]);
    some(&mut limits.fault_pages_max, &[1, 4]);
    some(&mut limits.mutation_pages_max, &[24]);
    some(&mut limits.layers_max, &[1, 3]);
    some(&mut limits.message_pages_max, &[1, 8]);
    some(&mut limits.append_part_pages_max, &[1, 5]);
    some(&mut limits.frames_in_flight_size_max, &[1, 300]);
    some(&mut limits.entries_in_flight_size_max, &[1, 20_000]);
    some(&mut limits.read_chunk_pages, &[1, 3]);
    some(&mut limits.owner_reads_max, &[1, 2]);
    some(&mut limits.owner_read_pages_max, &[1, 8]);
    some(&mut limits.frame_pages_max, &[1, 3]);
    some(&mut limits.room_pages_in_flight_max, &[1, 8]);
    some(&mut limits.catch_up_pages, &[1, 3]);
    // Where little is on its way at once, messages are small.
    if limits.frames_in_flight_size_max < limits.message_frames_size_max {
        limits.message_frames_size_max = limits.frames_in_flight_size_max / 2;
    }
    // Where little comes at once, little waits for the disk.
    limits.entries_unstored_size_max = 2 * limits.entries_in_flight_size_max;
    limits.entries_put_off_size_max =
        limits.entries_put_off_size_max.min(limits.entries_in_flight_size_max);
    // Where layers are few, rebases wait.
    if limits.layers_max < Limits::DEFAULT.layers_max {
        limits.runs_per_lsn = limits.layers_max as u64 / 2;
    }
    if rng.once_in(2) {
        limits.entries_in_flight_max = 1 + rng.below(3);
    }
    if rng.once_in(3) {
        limits.statement_steps_max = 26_000;
    }
    if rng.once_in(2) {
        limits.slice = BudgetLimits::SMALLEST;
    }
    limits
}
