//! Every failure as a tab is told of it: what happened, and what the caller can do.

use tidelog_document::{ArgumentError, DoctypeError, is_unknown};
use tidelog_pages::AppendError;
use tidelog_sqlite::Failure;
use tidelog_sync::{ByeReason, Refusal, UndecidedReason};
use tidelog_types::limits::{CONSUMER_NAME_SIZE_MAX, CONSUMERS_MAX, INSTANCE_KINDS_MAX};
use tidelog_types::{ErrorCode, Outcome, Remedy, Role, UnservedKind, shortened};

use crate::effect::PageServerFailure;
use crate::protocol::CallFailure;

/// Characters of a query that a message about it quotes.
const QUOTED_CHARS_MAX: usize = 120;

impl CallFailure {
    /// A failure that left nothing behind.
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            outcome: Outcome::None,
            message: message.into(),
            mutation: None,
            reason: None,
            remedy: code.remedy(),
        }
    }

    /// One that lasts until somebody has mended something, though its code does not say so.
    fn until_mended(self) -> Self {
        Self { remedy: Remedy::Mend, ..self }
    }

    /// Whether trying again by itself cannot help.
    pub(crate) fn is_final(&self) -> bool {
        self.remedy == Remedy::Mend
    }

    pub(crate) fn rejected(mutation: &str, reason: &str) -> Self {
        Self {
            outcome: if is_unknown(reason) { Outcome::Unknown } else { Outcome::None },
            mutation: Some(mutation.to_owned()),
            reason: Some(reason.to_owned()),
            ..Self::new(ErrorCode::Rejected, format!("mutation {mutation} was rejected: {reason}"))
        }
    }

    pub(crate) fn unknown_mutation(name: &str, doctype: &str) -> Self {
        Self::new(
            ErrorCode::UnknownMutation,
            format!("doctype {doctype} has no mutation {name}: define it, or correct the name"),
        )
    }

    pub(crate) fn argument(mutation: &str, error: &ArgumentError) -> Self {
        Self::new(ErrorCode::MutationArgument, format!("mutation {mutation}: {error}"))
    }

    /// A mutation that failed where it was issued.
    pub(crate) fn of_mutation(mutation: &str, failure: &Failure) -> Self {
        match failure {
            Failure::Rejected { reason } => Self::rejected(mutation, reason),
            Failure::ReadSetTooLarge { .. } | Failure::Shortage { .. } => Self::of_query(failure),
            other => Self::rejected(mutation, &other.to_string()),
        }
    }

    pub(crate) fn of_query(failure: &Failure) -> Self {
        let (code, advice) = match failure {
            Failure::ReadOnly => (ErrorCode::ReadOnly, "use a mutation for that"),
            Failure::Budget { .. } => (
                ErrorCode::BudgetExceeded,
                "it was stopped: give it a limit, an index, or an end to its recursion",
            ),
            Failure::Shortage { .. } => {
                (ErrorCode::Engine, "nothing was recorded: try again once other tabs are closed")
            }
            Failure::ReadSetTooLarge { .. } => (
                ErrorCode::ReadSetTooLarge,
                "it reads more than can be held at once: narrow it, or add an index",
            ),
            _ => (ErrorCode::Query, "correct the statement or its parameters"),
        };
        Self::new(code, format!("{failure}; {advice}"))
    }

    /// Quotes the query that failed, from its beginning on.
    pub(crate) fn quoting(mut self, sql: &str) -> Self {
        let mut quoted = sql.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some((end, _)) = quoted.char_indices().nth(QUOTED_CHARS_MAX) {
            quoted.truncate(end);
            quoted.push('…');
        }
        if !quoted.is_empty() {
            self.message = format!("{}: {quoted}", self.message);
        }
        self
    }

    pub(crate) fn of_doctype(error: &DoctypeError) -> Self {
        let (code, advice) = match error {
            DoctypeError::Unchecked { .. } => {
                (ErrorCode::Engine, "try again once other tabs are closed")
            }
            _ => (ErrorCode::Doctype, "correct the doctype"),
        };
        Self::new(code, format!("{error}; {advice}, nothing was opened or changed"))
    }

    pub(crate) fn of_migration(failure: &Failure) -> Self {
        let (code, advice) = match failure.is_passing() {
            true => (ErrorCode::Engine, "try again once other tabs are closed"),
            false => (ErrorCode::Doctype, "correct the doctype"),
        };
        Self::new(
            code,
            format!(
                "a migration does not run on this document: {failure}; {advice}, nothing was \
                 changed"
            ),
        )
    }

    /// The document could not be brought to the version of whoever asks.
    pub(crate) fn short_of_memory() -> Self {
        Self::new(
            ErrorCode::Engine,
            "there was no memory to bring the document to this release: nothing was recorded; try \
             again once other tabs are closed",
        )
    }

    /// What came from the server could not be brought together with what is pending here.
    pub(crate) fn of_rebase(failure: &Failure) -> Self {
        Self::new(
            match failure.is_passing() {
                true => ErrorCode::Engine,
                false => ErrorCode::Doctype,
            },
            format!(
                "the server's changes cannot be taken in: {failure}; every local row is kept, \
                 and they are asked for again by itself"
            ),
        )
    }

    pub(crate) fn doctype_mismatch(why: &str) -> Self {
        let message = format!("the document is not for this release of the app: {why}");
        Self::new(ErrorCode::DoctypeMismatch, message)
    }

    /// Some of what was durable has changed under us.
    pub(crate) fn damaged_copy() -> Self {
        Self::new(
            ErrorCode::Storage,
            "data of this document were damaged on this device: it is as it was before them, and \
             can be read and exported; then begin anew with destroyAll(), or clear the data of \
             this site",
        )
        .until_mended()
    }

    /// What fails for its words in a document that this damage keeps from the version which they
    /// are meant for fails for the damage.
    pub(crate) fn unless_for(self, damage: Option<Self>) -> Self {
        match damage {
            Some(damage) if self.code == ErrorCode::Query => damage,
            _ => self,
        }
    }

    /// A mutation that was durable, or may have been, and of which nothing is left here.
    pub(crate) fn lost() -> Self {
        Self {
            outcome: Outcome::Unknown,
            ..Self::new(
                ErrorCode::Storage,
                "it was issued on data of this site that were cleared or put back since: nobody \
                 can tell what became of it; look before it is issued again",
            )
        }
    }

    /// A mutation that has its verdict, which is so old that it was forgotten.
    pub(crate) fn forgotten() -> Self {
        Self {
            outcome: Outcome::Unknown,
            ..Self::new(
                ErrorCode::Engine,
                "the server has decided it, and so much since that its verdict is not kept any \
                 more: look whether it was applied",
            )
        }
    }

    /// A mutation of which nobody knows whether it was recorded.
    pub(crate) fn unremembered() -> Self {
        Self {
            outcome: Outcome::Unknown,
            ..Self::new(
                ErrorCode::Engine,
                "so much has happened since it was issued that nobody can tell whether it was \
                 recorded: look before it is issued again",
            )
        }
    }

    /// A mutation that was refused before one that its tab issued later was recorded, and whose
    /// answer did not get through.
    pub(crate) fn refused_before() -> Self {
        Self::new(
            ErrorCode::Engine,
            "it was refused, and the reason was lost with the way to the tab",
        )
    }

    /// `is_repeat`: an earlier page server was handed the same, and may have made it durable.
    pub(crate) fn of_append(error: &AppendError, is_repeat: bool) -> Self {
        let (outcome, fate) = match error {
            // They are said before what is on the disk is looked at, or of a disk that has lost
            // something: it may have been that.
            AppendError::Fenced { .. } | AppendError::Busy | AppendError::Damaged if is_repeat => {
                let fate = "it may have been recorded before: look before it is issued again";
                (Outcome::Unknown, fate)
            }
            _ => (Outcome::None, "nothing was recorded"),
        };
        Self::of_append_that(error, outcome, fate)
    }

    /// Of several copies that were to be destroyed, one was not.
    pub(crate) fn of_some_destroyed(error: &AppendError) -> Self {
        Self::of_append_that(error, Outcome::Unknown, "some of the copies may be gone: try again")
    }

    fn of_append_that(error: &AppendError, outcome: Outcome, fate: &str) -> Self {
        let failure = match error {
            AppendError::Damaged => Self::new(
                ErrorCode::Storage,
                format!(
                    "data of this site were damaged on this device: what is whole can be read and \
                     exported; then begin anew with destroyAll(), or clear the data of this site; \
                     {fate}"
                ),
            )
            .until_mended(),
            AppendError::Full => Self::new(
                ErrorCode::StorageFull,
                format!(
                    "the device has no more room for this site: free some, then try again; {fate}"
                ),
            ),
            other => Self::new(ErrorCode::Storage, format!("{other}; {fate}")),
        };
        Self { outcome, ..failure }
    }

    pub(crate) fn data_cleared() -> Self {
        Self::new(
            ErrorCode::Storage,
            "the data of this site were cleared while they were in use: what is shown is in \
             memory only, and nothing more can be kept; export what is needed, then load the page \
             anew in every tab",
        )
        .until_mended()
    }

    pub(crate) fn of_page_server(failure: &PageServerFailure) -> Self {
        let PageServerFailure { kind, reason } = failure;
        match kind {
            UnservedKind::NewerFormat => Self::new(
                ErrorCode::NewerFormat,
                "the data on this device are of a newer format: load the newer release of the \
                 app; nothing was touched",
            ),
            UnservedKind::Unavailable | UnservedKind::NoFiles => Self::new(
                ErrorCode::Storage,
                format!(
                    "this window has nothing to keep data in ({reason}): it is tried again by \
                         itself; if it stays so, open the app in an ordinary window"
                ),
            ),
            UnservedKind::Full => Self::new(
                ErrorCode::StorageFull,
                "the device has no more room for this site: free some, and it goes on by itself; \
                 until then what is issued is kept in memory only",
            ),
            UnservedKind::Lost => Self::data_cleared(),
            UnservedKind::Damaged => Self::new(
                ErrorCode::Storage,
                format!(
                    "the data on this device cannot be read ({reason}): they were left as they \
                     are; begin anew with destroyAll(), or clear the data of this site"
                ),
            ),
        }
    }

    pub(crate) fn unreachable(server: &str) -> Self {
        Self::new(
            ErrorCode::ServerUnreachable,
            format!(
                "{server} does not answer: it is tried again by itself, and mutations wait \
                 safely on this device; if it runs, see whether that is its address: ws:// or \
                 wss://, port, path"
            ),
        )
    }

    /// Who holds the document has named no server, and it has this one.
    pub(crate) fn unnamed(server: &str) -> Self {
        Self::new(
            ErrorCode::ServerUnreachable,
            format!(
                "this document is synced with {server}, and was opened without a server: name it \
                 as `server`, or mutations wait on this device"
            ),
        )
    }

    /// Nothing is tried again by itself: the document is as local as it was.
    pub(crate) fn not_handed_over(server: &str, why: &str) -> Self {
        Self::new(
            ErrorCode::ServerUnreachable,
            format!("{server} {why}; the document stays local, and can be opened there again"),
        )
    }

    /// Passes: it is asked for again.
    pub(crate) fn no_token(server: &str) -> Self {
        Self::new(
            ErrorCode::ServerUnreachable,
            format!(
                "{server} wants a token, and the token function gave none: it is called again \
                     by itself, and mutations wait safely on this device"
            ),
        )
    }

    /// Passes: it is tried again, ever more rarely.
    pub(crate) fn crowded(server: &str) -> Self {
        Self::new(
            ErrorCode::ServerUnreachable,
            format!(
                "{server} has too many connections of this user: it is tried again by itself, \
                     and mutations wait safely on this device; give each user a token of their own"
            ),
        )
    }

    pub(crate) fn exists(document: &str) -> Self {
        Self::new(
            ErrorCode::DocumentExists,
            format!(
                "the server already has a document named {document}: open the local one \
                     without a server, or under another name; nothing was changed"
            ),
        )
    }

    pub(crate) fn replaced(document: &str) -> Self {
        Self::new(
            ErrorCode::DocumentReplaced,
            format!(
                "the server has another document named {document} now: its content replaces \
                     this copy, and mutations without a verdict are issued to it anew"
            ),
        )
    }

    pub(crate) fn protocol(reason: &str) -> Self {
        Self::new(
            ErrorCode::Protocol,
            format!("{reason}: update the app or the server; every local row is kept"),
        )
    }

    pub(crate) fn may_not_change(mutation: &str, document: &str, access: Role) -> Self {
        Self::new(
            ErrorCode::Access,
            format!(
                "{mutation} was not recorded: the server has said last that this user may only \
                 {access} {}{document}; db.status.access says what is allowed",
                if access == Role::Send { "commands to " } else { "" }
            ),
        )
    }

    pub(crate) fn may_not_handle(reason: &str) -> Self {
        Self::new(
            ErrorCode::Access,
            format!("this copy handles no commands or workflows: {reason}"),
        )
    }

    pub(crate) fn no_tasks() -> Self {
        Self::new(ErrorCode::InvalidOption, "its doctype has no commands or workflows")
    }

    pub(crate) fn many_kinds() -> Self {
        Self::new(
            ErrorCode::InvalidOption,
            format!(
                "one handler handles {INSTANCE_KINDS_MAX} kinds of commands and workflows at most"
            ),
        )
    }

    pub(crate) fn of_another(document: &str, owner: &str, subject: &str) -> Self {
        Self::new(
            ErrorCode::Access,
            format!(
                "this copy of {document} belongs to {owner}, and the token is for {subject}: \
                 nothing is sent; give open() a token of {owner}, or open a copy of its own for \
                 {subject} by the option user"
            ),
        )
    }

    pub(crate) fn of_refusal(document: &str, refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Missing => Self::new(
                ErrorCode::DocumentMissing,
                format!(
                    "the server no longer has the document {document}: this copy is kept; \
                         export it, or destroy it to begin anew"
                ),
            ),
            Refusal::Exists => Self::exists(document),
            Refusal::DoctypeMismatch { reason } => Self::new(
                ErrorCode::DoctypeMismatch,
                format!("the server's document {document} is of another doctype: {reason}"),
            ),
            Refusal::DoctypeInvalid { reason } => Self::new(
                ErrorCode::Doctype,
                format!("the server cannot use the doctype of {document}: {reason}"),
            ),
            Refusal::Access { reason } => Self::new(
                ErrorCode::Access,
                format!(
                    "the server gives no access to {document}: {reason}; give open() a token \
                         that does"
                ),
            ),
            Refusal::Protocol { reason } => Self::protocol(reason),
            Refusal::DoctypeWanted => Self::protocol("a doctype is wanted that was brought"),
            Refusal::Storage { reason } => Self::new(
                ErrorCode::ServerUnreachable,
                format!("the server cannot serve {document} at the moment: {reason}"),
            ),
            // Asked again, it tells where the two part.
            Refusal::Parted => Self::new(
                ErrorCode::ServerUnreachable,
                format!(
                    "another copy of this device's data has changed {document}: what is only here \
                     is being sent on its own"
                ),
            ),
            Refusal::Damaged => Self::new(
                ErrorCode::Storage,
                format!(
                    "data on the server were damaged, and until its operator has mended that it \
                     does not serve {document}: this copy is kept, and mutations wait safely on \
                     this device"
                ),
            )
            .until_mended(),
        }
    }

    pub(crate) fn much_is_undecided(mutation: &str) -> Self {
        Self::new(
            ErrorCode::BudgetExceeded,
            format!(
                "so much waits for the server that {mutation} was not recorded: issue it again \
                 once the server has decided some of it"
            ),
        )
    }

    /// Events have left the document, and `why` says why their archive does not give them.
    pub(crate) fn archived(up_to: u64, why: &str) -> Self {
        Self::new(
            ErrorCode::Archived,
            format!("events up to number {up_to} may be in the archive at the server: {why}"),
        )
    }

    pub(crate) fn many_consumers(name: &str) -> Self {
        Self::new(
            ErrorCode::BudgetExceeded,
            format!(
                "how far consumer {} has come is not kept: a copy of a document keeps that of \
                 {CONSUMERS_MAX} consumers, whose names have {CONSUMER_NAME_SIZE_MAX} bytes at \
                 most",
                shortened(name.to_owned())
            ),
        )
    }

    /// What a local document has written fills the memory there is for it, and no disk takes any of
    /// it, for this reason if one is known.
    pub(crate) fn much_is_unstored(mutation: &str, why: Option<&PageServerFailure>) -> Self {
        let no_window = || Self::new(ErrorCode::Storage, "no window keeps data at the moment");
        let Self { code, message, .. } = why.map_or_else(no_window, Self::of_page_server);
        let lead = format!("so much waits for the disk that {mutation} was not recorded");
        Self::new(code, format!("{lead}: issue it again once some is kept; {message}"))
    }

    pub(crate) fn of_undecided(document: &str, why: &UndecidedReason) -> Self {
        match why {
            UndecidedReason::UnknownDoctype { reason } => {
                Self::new(ErrorCode::Doctype, reason.clone())
            }
            UndecidedReason::NoRoomForVerdict { reason } => Self::new(
                ErrorCode::BudgetExceeded,
                format!(
                    "the server has no room left in {document} ({reason}): mutations wait safely \
                     on this device until something is deleted there"
                ),
            ),
            UndecidedReason::VerdictFailed { reason } => Self::new(
                ErrorCode::Storage,
                format!(
                    "the server cannot write into {document} ({reason}): mutations wait safely on \
                     this device until its operator has mended that"
                ),
            )
            .until_mended(),
        }
    }

    pub(crate) fn of_bye(server: &str, reason: &ByeReason) -> Option<Self> {
        match reason {
            ByeReason::Version => {
                Some(Self::protocol(&format!("{server} speaks another version of the protocol")))
            }
            ByeReason::Unauthenticated => Some(Self::new(
                ErrorCode::Access,
                format!(
                    "{server} wants to know who this is: give open() a token function whose \
                         token is valid; for development start it with --dev"
                ),
            )),
            ByeReason::Origin => Some(Self::new(
                ErrorCode::Access,
                format!(
                    "{server} refuses this page by its origin: start it with --allow-origin and \
                         that origin; one that is started with --dev serves pages of its own \
                         machine only, so open the page at http://localhost, and give open() a \
                         server at localhost too"
                ),
            )),
            ByeReason::Protocol { reason } => Some(Self::protocol(reason)),
            ByeReason::Shutdown | ByeReason::Slow => None,
        }
    }

    pub(crate) fn closed() -> Self {
        Self::new(ErrorCode::DocumentClosed, "the document was closed: open it again")
    }

    pub(crate) fn pending(document: &str, count: u64) -> Self {
        Self::new(
            ErrorCode::Pending,
            format!(
                "{count} mutations of {document} have no verdict yet: sync first, or destroy \
                     with force to give them up"
            ),
        )
    }

    /// A synced document that is held without its server.
    pub(crate) fn no_server_named() -> Self {
        Self::invalid(
            "no tab has opened this synced document with its server, so nothing connects to it: \
             give open() the option server, in this tab or another one",
        )
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidOption, message)
    }

    pub(crate) fn absent_page() -> Self {
        Self::new(
            ErrorCode::Storage,
            "a page of this document is not on this device: connect to its server",
        )
    }
}
