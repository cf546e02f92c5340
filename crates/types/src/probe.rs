//! Rare branches of the product, which long simulations have to reach.
//!
//! A simulation that never fails proves little of a branch that it never entered. So such branches
//! call [`reached`], and the simulator's long runs fail where one was not. Anywhere else the crate
//! is built without its feature `probes`, and a call is no code at all.

/// Declares the probes and the list of them.
macro_rules! probes {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// A branch that is entered rarely.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Probe {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Probe {
            /// Each of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];
        }
    };
}

probes! {
    // --- tabs ------------------------------------------------------------------------------------
    /// A tab asks another core what it had asked the one before.
    TabAskedAgain,
    /// A tab ends a call by itself.
    TabGaveCallUp,
    // --- core: calls -----------------------------------------------------------------------------
    /// A core finds a repeated call among the undecided mutations.
    CallFoundUndecided,
    /// A core finds a repeated call among those of its own that are not durable yet.
    CallFoundInFlight,
    /// A core finds a repeated call among the rejections.
    CallFoundRejected,
    /// A core finds a repeated call among those that are decided.
    CallFoundDecided,
    /// A core does not find a repeated call, and runs it.
    CallNotFound,
    /// A mutation waits until earlier ones are durable, so that all of them can be recognised.
    MutationWaitedForDisk,
    /// A mutation is not recorded, since too much has no verdict yet.
    MuchUndecided,
    /// A step of a document stops with work left, since it has cost enough.
    DocumentSliceSpent,
    /// A rejection is forgotten, since too many are kept.
    RejectionDropped,
    /// Mutations are rejected since who issued them may not change the document any more.
    MutationsWithdrawn,
    /// That does not become durable, or its server is lost before.
    WithdrawalEnded,
    /// Mutations go on as those of the user that a copy is known to be of by now.
    TimelineRenamed,
    /// A copy is not synced by another user's token.
    OtherSubjectMet,
    /// Nobody has a token that takes the place of one that expires soon.
    TokenNotRenewed,
    /// A token is renewed.
    TokenRenewed,
    // --- core: store -----------------------------------------------------------------------------
    /// An append failed: its document is read anew.
    AppendFailedAndReloaded,
    /// Entries of the server wait for something to go to the disk with.
    EntriesPutOff,
    /// They go there with a mutation.
    EntriesJoined,
    /// Entries of the server went to the disk as one.
    EntriesStoredAsOne,
    /// A document is not read anew before earlier appends are answered.
    OpenWaitedForAppends,
    /// A document that tabs hold was never durable, and is made again.
    DocumentMadeAgain,
    /// A doctype is not what the server has migrated a document by.
    ServersDoctypeOther,
    /// A doctype that its server refuses is forgotten, since nobody needs it.
    RefusedDoctypeForgotten,
    /// A doctype that nobody needs is forgotten for one that parts from it.
    DoctypeGaveWay,
    /// What is not durable is handed to the next page server.
    HandedOverAgain,
    /// The next page server is asked for what the one before has not answered.
    ReadAskedOfNext,
    /// A page server was to tell a tab of an append, and was gone before.
    NoticeLost,
    /// A page came that was written meanwhile.
    PageCameStale,
    /// The page server did not take a read in.
    ReadRefused,
    /// The page server says that pages are damaged.
    PagesDamaged,
    /// A copy was destroyed.
    CopyDestroyed,
    /// A copy could not be destroyed, and stays.
    DestroyFailed,
    // --- core: server ----------------------------------------------------------------------------
    /// A local document is offered to a server.
    DraftOffered,
    /// An offer was not answered in time.
    OfferLate,
    /// What was offered is the server's.
    DraftSeeded,
    /// The server has lost what is held here: the whole document comes anew.
    RestoreFound,
    /// What the server has of the timeline is not a part of it.
    TimelinesParted,
    /// An entry comes in parts.
    EntryInParts,
    /// An entry waits for pages of before it, by which it goes.
    EntryWaitedForPages,
    /// An entry comes that is held already, and is acknowledged again.
    RepeatedEntryAcked,
    /// Entries that do not fit are asked for anew.
    EntriesAskedAnew,
    /// A server that says nothing of a document is asked on another channel.
    SilentChannelLeft,
    /// A server that a tab names has another document of that name.
    NamesakeMet,
    /// A server refuses a document.
    DocumentRefused,
    /// A server does not know a doctype by its hash, and is brought it.
    DoctypeWanted,
    /// A server is asked anew for a verdict that it could not give.
    VerdictAskedAgain,
    /// A connection on which nothing is heard is given up.
    SilentLinkGivenUp,
    /// A server is told a token.
    TokenSent,
    /// The window of frames in flight is full.
    FrameWindowFull,
    // --- replica ---------------------------------------------------------------------------------
    /// A mutation shares a layer with others.
    LayerShared,
    /// Mutations share a layer in a rebase.
    LayerSharedInRebase,
    /// A mutation that shares a layer is run once more to see whether its entry was predicted.
    SharedLayerFolded,
    /// A rebase goes on in another slice.
    RebaseSliced,
    /// A rebase waits for a page.
    RebaseFaulted,
    /// A rebase waits for more entries.
    RebasePutOff,
    /// A rebase begins anew, for a newer doctype or other entries.
    RebaseAbandoned,
    /// The whole document takes the place of the one that was held.
    BaseReplaced,
    /// Undecided mutations go on in another timeline.
    TimelineMoved,
    /// A frame that was moved, or its copy that was not, finds its verdict there.
    MovedFrameRepeated,
    /// Nobody can tell what became of a mutation.
    FateUnknown,
    /// A device is ahead of the server's migrations.
    MigratedAhead,
    /// A rejection is found in the server's tables.
    RejectionFound,
    /// An entry does not follow on the one before.
    EntryLeftGap,
    /// Base pages leave the memory.
    BasePagesEvicted,
    /// A document gives back its pages for others.
    DocumentRested,
    // --- room ------------------------------------------------------------------------------------
    /// A room stops with work left, since the step has cost enough.
    RoomSliceSpent,
    /// A room runs no more until what it ran is durable.
    RoomWaitedForDisk,
    /// A run in a room waits for a page.
    RoomFaulted,
    /// A frame comes that was decided before.
    FrameRepeated,
    /// A server refuses a frame that another user has issued.
    OtherUsersFrameRefused,
    /// A server takes no frames of one who may only follow.
    FramesForbidden,
    /// Frames come of a life that is not the timeline's any more.
    FramesParted,
    /// A room's state is not what is on the disk: everybody is sent away.
    RoomPoisoned,
    /// The same while offers wait for what becomes of another one.
    RoomPoisonedAmidOffers,
    /// A client holds what was lost here.
    HeldIsLost,
    /// A client holds a document that is not here.
    DocumentMissing,
    /// Another document of that name is here.
    OfferRefused,
    /// An offer waits until it is known what became of another one.
    OfferWaited,
    /// What is offered is here already: the answer was lost.
    OfferHeld,
    /// What is offered has gone on since the answer to an earlier offer was lost.
    OfferBeyond,
    /// A seed becomes the server's document.
    SeedPlanted,
    /// Nothing came of a seed while others waited with theirs.
    SeedOverdue,
    /// A newer doctype comes to a document.
    DoctypeAdmitted,
    /// A document has no room for a verdict.
    VerdictWithoutRoom,
    /// There is no room for an entry on a connection.
    OutletFull,
    /// There is no room for a chunk of a catch-up on a connection.
    CatchUpWaited,
    /// A document moved on while a follower caught up.
    CatchUpPassedAgain,
    /// A chunk of a catch-up waits until it is durable.
    ChunkNotDurable,
    /// A follower is sent one entry for several LSNs.
    EntryMerged,
    /// Entries of one append left as one.
    EntriesLeftAsOne,
    /// A follower has not acknowledged enough to be sent more.
    FollowerHeldBack,
    // --- store -----------------------------------------------------------------------------------
    /// A storage entry is in the log already.
    EntryRepeated,
    /// A timeline entry is in the log already.
    TimelineEntryRepeated,
    /// An append comes again that others have followed.
    AppendRepeated,
    /// An append behind one that failed is refused.
    AppendBehindFailure,
    /// Appends found no room, and are taken back.
    TakenBack,
    /// A request waits until appends are taken back.
    WaitedForTakingBack,
    /// An owner is fenced off.
    OwnerFenced,
    /// An owner has more outstanding than it may.
    OwnerBusy,
    /// A read goes on in another turn.
    ReadSliced,
    /// Pages of an append are sent ahead.
    PagesSentAhead,
    /// A batch is written as it is put together.
    BatchWrittenInParts,
    /// An append was recorded in several slices, and what came behind it waited.
    AppendSliced,
    /// A page leaves a store's pool.
    PoolEvicted,
    /// A page comes back to a store's pool soon after it left.
    PoolGhostReturned,
    /// A page is not what was written.
    PageRotten,
    // --- log -------------------------------------------------------------------------------------
    /// A torn tail is cut off.
    TornTailCut,
    /// What waited until a torn tail was gone for good is written.
    WroteAfterCut,
    /// A change-over has ended.
    ChangedOver,
    /// A change-over is given up for want of room.
    ChangeOverGivenUp,
    /// A change-over waits for reads.
    ChangeOverWaitedForReads,
    /// Batches were held while the log changed over.
    BatchesHeld,
    /// Files shrink.
    FilesShed,
}

/// Notes that a branch was entered.
#[cfg(not(feature = "probes"))]
#[inline(always)]
pub fn reached(_: Probe) {}

/// Notes that an undecided mutation was run again.
#[cfg(not(feature = "probes"))]
#[inline(always)]
pub fn ran_again(_: crate::CallId) {}

#[cfg(feature = "probes")]
pub use counting::{count, counts, ran_again, reached, take_runs};

#[cfg(feature = "probes")]
mod counting {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::Probe;
    use crate::CallId;

    thread_local! {
        static COUNTS: RefCell<[u64; Probe::ALL.len()]> =
            const { RefCell::new([0; Probe::ALL.len()]) };
        static RUNS: RefCell<BTreeMap<CallId, u64>> = const { RefCell::new(BTreeMap::new()) };
    }

    /// Notes that a branch was entered.
    pub fn reached(probe: Probe) {
        COUNTS.with_borrow_mut(|counts| counts[probe as usize] += 1);
    }

    /// How often this branch was entered on this thread.
    #[must_use]
    pub fn count(probe: Probe) -> u64 {
        COUNTS.with_borrow(|counts| counts[probe as usize])
    }

    /// How often each branch was entered on this thread.
    #[must_use]
    pub fn counts() -> Vec<(Probe, u64)> {
        COUNTS.with_borrow(|counts| Probe::ALL.iter().copied().zip(*counts).collect())
    }

    /// Notes that an undecided mutation was run again.
    pub fn ran_again(call: CallId) {
        RUNS.with_borrow_mut(|runs| *runs.entry(call).or_default() += 1);
    }

    /// How often each mutation was run again on this thread, since this was last asked.
    #[must_use]
    pub fn take_runs() -> BTreeMap<CallId, u64> {
        RUNS.take()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn each_branch_has_a_count_of_its_own() {
            let (first, last) = (Probe::ALL[0], *Probe::ALL.last().expect("some"));
            reached(last);
            reached(last);
            let counts = counts();
            assert_eq!(counts.first(), Some(&(first, 0)));
            assert_eq!(counts.last(), Some(&(last, 2)));
            assert_eq!([count(first), count(last)], [0, 2]);
        }
    }
}
