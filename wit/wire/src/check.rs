//! What an outcome must keep, checked before a byte of it is copied.
//!
//! ```text
//!            ┌ counts, extras ┐   ┌ header records, each once ┐
//! outcome ──▶│ before any     │──▶│ outputs in order: source, │──▶ failures, sorted by event ──▶ Checked
//!            │ loop           │   │ bits, spans, running sums │
//!            └────────────────┘   └───────────────────────────┘
//! ```
//!
//! Spans may overlap and outputs may share them, so a small answer can stand for a huge one: each
//! output is therefore counted in full, and the work is bounded by the limits, not by what the
//! plugin wrote. Nothing is allocated except in the text of a refusal.

use crate::invalid::{FailureFault, HeaderFault, Invalid, List, OutputFault, Piece};
use crate::types::{
    Batch, EDIT_KNOWN, Event, Failure, HEADER_VALUE_NULL, Header, HeaderEdit, Outcome, Output,
    Part, REMEDY_HALT, REMEDY_REJECT, REMEDY_RETRY, REMEDY_UNAVAILABLE, SOURCE_BATCH, Span,
};
use crate::{HEADER_NAME_MAX, REASON_KEPT, is_code, is_reserved_header};

/// What a consumer allows one outcome to hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Derived events in one outcome.
    pub outputs: u32,
    /// Bytes of all derived events, each counted in full with what it inherits or shares: key,
    /// value, header names and header values.
    pub output_bytes: u64,
    /// Headers of one derived event, inherited ones included. A source with more can only be
    /// derived from with `replace`.
    pub headers: u32,
}

/// An outcome that keeps the rules: each span, range, index, code and bit of it can be followed.
/// Its failures are sorted by event.
#[derive(Clone, Debug)]
pub struct Checked(Outcome);

impl Checked {
    /// The outcome.
    pub fn outcome(&self) -> &Outcome {
        &self.0
    }
}

/// Checks an outcome against the batch that it answers. `outputs` is how many names the consumer
/// gave in `setup`. The batch is the runtime's own and is trusted.
///
/// # Errors
/// The first rule that the outcome breaks. It is then to be thrown away whole.
pub fn check(
    batch: &Batch<'_>,
    mut outcome: Outcome,
    outputs: u32,
    limits: &Limits,
) -> Result<Checked, Invalid> {
    check_counts(batch, &outcome, limits)?;
    for (index, header) in outcome.headers.iter().enumerate() {
        check_header(header, &outcome.data).map_err(|fault| Invalid::Header {
            header: index,
            fault,
        })?;
    }
    check_outputs(batch, &outcome, outputs, limits)?;
    for (index, failure) in outcome.failures.iter().enumerate() {
        check_failure(batch, &outcome, failure).map_err(|fault| Invalid::Failure {
            failure: index,
            fault,
        })?;
    }
    outcome
        .failures
        .sort_unstable_by_key(|failure| failure.event);
    if let Some(pair) = outcome
        .failures
        .windows(2)
        .find(|pair| pair[0].event == pair[1].event)
    {
        return Err(Invalid::FailsTwice {
            event: pair[0].event,
        });
    }
    let stops = |failure: &Failure| matches!(failure.remedy, REMEDY_UNAVAILABLE | REMEDY_HALT);
    if outcome.handled == 0 && !outcome.failures.iter().any(stops) {
        return Err(Invalid::NothingHandled);
    }
    Ok(Checked(outcome))
}

/// What bounds the loops that follow.
fn check_counts(batch: &Batch<'_>, outcome: &Outcome, limits: &Limits) -> Result<(), Invalid> {
    let events = batch.events.len();
    if outcome.handled as usize > events {
        return Err(Invalid::HandledTooMany {
            handled: outcome.handled,
            events,
        });
    }
    if let Some(extra) = outcome.extras.first() {
        return Err(Invalid::UnknownExtra { kind: extra.kind });
    }
    let outputs = outcome.outputs.len();
    if outputs as u64 > u64::from(limits.outputs) {
        return Err(Invalid::TooManyOutputs {
            outputs,
            limit: limits.outputs,
        });
    }
    let usable = (outputs as u64).saturating_mul(u64::from(limits.headers));
    if outcome.headers.len() as u64 > usable {
        return Err(Invalid::UnusedHeaders {
            headers: outcome.headers.len(),
            outputs,
        });
    }
    if outcome.failures.len() > events {
        return Err(Invalid::TooManyFailures {
            failures: outcome.failures.len(),
            events,
        });
    }
    Ok(())
}

fn check_header(header: &Header, data: &[u8]) -> Result<(), HeaderFault> {
    if header.bits & !HEADER_VALUE_NULL != 0 {
        return Err(HeaderFault::UnknownBits(header.bits));
    }
    let name = header.name.of(data).ok_or(HeaderFault::NameSpan)?;
    if name.is_empty() || name.len() > HEADER_NAME_MAX {
        return Err(HeaderFault::NameLength(header.name.length));
    }
    let text = std::str::from_utf8(name).map_err(|_| HeaderFault::NameNotUtf8)?;
    if is_reserved_header(name) {
        return Err(HeaderFault::Reserved(text.to_owned()));
    }
    if header.bits & HEADER_VALUE_NULL == 0 && header.value.of(data).is_none() {
        return Err(HeaderFault::ValueSpan);
    }
    Ok(())
}

fn check_outputs(
    batch: &Batch<'_>,
    outcome: &Outcome,
    outputs: u32,
    limits: &Limits,
) -> Result<(), Invalid> {
    let mut bytes = 0_u64;
    let mut before = 0_u32;
    for (index, output) in outcome.outputs.iter().enumerate() {
        let at = |fault| Invalid::Output {
            output: index,
            fault,
        };
        let source = check_source(batch, outcome.handled, output, before).map_err(at)?;
        before = output.source;
        if output.output >= outputs {
            return Err(at(OutputFault::NoSuchOutput {
                output: output.output,
                outputs,
            }));
        }
        let edit = match output.header_edit() {
            Some(edit) if output.edit & !EDIT_KNOWN == 0 => edit,
            _ => return Err(at(OutputFault::UnknownEdit(output.edit))),
        };
        if source.is_none() && edit != HeaderEdit::Replace {
            return Err(at(OutputFault::NothingToInherit(Piece::Headers)));
        }
        let key = Field {
            piece: Piece::Key,
            part: output.key_part(),
            span: output.key,
            inherited: source.map(|event| event.key),
        };
        let value = Field {
            piece: Piece::Value,
            part: output.value_part(),
            span: output.value,
            inherited: source.map(|event| event.value),
        };
        let own = own_headers(outcome, output, edit).map_err(at)?;
        let headers = check_headers(batch, outcome, source, own, edit, limits, index)?;
        let sizes = [
            key.length(batch, outcome).map_err(at)?,
            value.length(batch, outcome).map_err(at)?,
            headers,
        ];
        bytes = sizes.into_iter().fold(bytes, u64::saturating_add);
        if bytes > limits.output_bytes {
            return Err(Invalid::TooManyBytes {
                output: index,
                limit: limits.output_bytes,
            });
        }
    }
    Ok(())
}

/// The event that an output derives from; `None` is the batch.
fn check_source<'a>(
    batch: &Batch<'a>,
    handled: u32,
    output: &Output,
    before: u32,
) -> Result<Option<&'a Event>, OutputFault> {
    let source_event = output.source;
    if source_event < before {
        return Err(OutputFault::SourceFalls {
            source_event,
            before,
        });
    }
    let not_handled = OutputFault::SourceNotHandled {
        source_event,
        handled,
    };
    if source_event == SOURCE_BATCH {
        // It takes effect with the last handled event, so there must be one.
        return if handled == 0 {
            Err(not_handled)
        } else {
            Ok(None)
        };
    }
    if source_event >= handled {
        return Err(not_handled);
    }
    batch
        .events
        .get(source_event as usize)
        .map(Some)
        .ok_or(not_handled)
}

/// A key or a value as an output describes it.
struct Field {
    piece: Piece,
    part: Part,
    span: Span,
    inherited: Option<Span>,
}

impl Field {
    /// Its bytes, once it is known to lie where it says.
    fn length(&self, batch: &Batch<'_>, outcome: &Outcome) -> Result<u64, OutputFault> {
        let (list, data) = match self.part {
            Part::Source => {
                return self
                    .inherited
                    .map(|span| u64::from(span.length))
                    .ok_or(OutputFault::NothingToInherit(self.piece));
            }
            Part::Null => return Ok(0),
            Part::Outcome => (List::Outcome, outcome.data.as_slice()),
            Part::Batch => (List::Batch, batch.data),
        };
        if self.span.of(data).is_none() {
            return Err(OutputFault::Span {
                piece: self.piece,
                list,
                start: self.span.start,
                length: self.span.length,
                size: data.len(),
            });
        }
        Ok(u64::from(self.span.length))
    }
}

/// The header records that an output names; none where it keeps the source's.
fn own_headers<'a>(
    outcome: &'a Outcome,
    output: &Output,
    edit: HeaderEdit,
) -> Result<&'a [Header], OutputFault> {
    if edit == HeaderEdit::Keep {
        return Ok(&[]);
    }
    slice(&outcome.headers, output.headers_start, output.headers_count).ok_or(
        OutputFault::Headers {
            start: output.headers_start,
            count: output.headers_count,
            size: outcome.headers.len(),
        },
    )
}

/// Bytes of an output's headers, inherited ones that an amendment drops included; refuses too many.
fn check_headers(
    batch: &Batch<'_>,
    outcome: &Outcome,
    source: Option<&Event>,
    own: &[Header],
    edit: HeaderEdit,
    limits: &Limits,
    index: usize,
) -> Result<u64, Invalid> {
    let too_many = |headers: usize| Invalid::TooManyHeaders {
        output: index,
        headers: headers as u64,
        limit: limits.headers,
    };
    let limit = limits.headers as usize;
    let inherited = match (source, edit) {
        (Some(event), HeaderEdit::Keep | HeaderEdit::Amend) => {
            slice(batch.headers, event.headers_start, event.headers_count).unwrap_or_default()
        }
        _ => &[],
    };
    // Each by itself first: the comparison of names below is then limit × limit at most.
    for count in [own.len(), inherited.len()] {
        if count > limit {
            return Err(too_many(count));
        }
    }
    if own.len() + inherited.len() > limit {
        let adds =
            |header: &&Header| edit == HeaderEdit::Replace || header.bits & HEADER_VALUE_NULL == 0;
        let dropped = |header: &Header| {
            let name = header.name.of(batch.data);
            own.iter().any(|own| own.name.of(&outcome.data) == name)
        };
        let kept = inherited.iter().filter(|header| !dropped(header)).count();
        let headers = kept + own.iter().filter(adds).count();
        if headers > limit {
            return Err(too_many(headers));
        }
    }
    Ok([own, inherited]
        .into_iter()
        .flatten()
        .map(|header| {
            let value = if header.bits & HEADER_VALUE_NULL == 0 {
                header.value.length
            } else {
                0
            };
            u64::from(header.name.length) + u64::from(value)
        })
        .fold(0, u64::saturating_add))
}

fn check_failure(
    batch: &Batch<'_>,
    outcome: &Outcome,
    failure: &Failure,
) -> Result<(), FailureFault> {
    let (event, handled, events) = (failure.event, outcome.handled, batch.events.len());
    if event as usize >= events {
        return Err(FailureFault::NoSuchEvent { event, events });
    }
    match failure.remedy {
        REMEDY_REJECT | REMEDY_RETRY if event >= handled => {
            return Err(FailureFault::NotHandled { event, handled });
        }
        REMEDY_UNAVAILABLE | REMEDY_HALT if event != handled => {
            return Err(FailureFault::NotNext { event, handled });
        }
        REMEDY_REJECT | REMEDY_RETRY | REMEDY_UNAVAILABLE | REMEDY_HALT => {}
        other => return Err(FailureFault::UnknownRemedy(other)),
    }
    let code = failure
        .code
        .of(&outcome.data)
        .ok_or(FailureFault::CodeSpan)?;
    if !is_code(code) {
        return Err(FailureFault::BadCode);
    }
    let reason = failure
        .reason
        .of(&outcome.data)
        .ok_or(FailureFault::ReasonSpan)?;
    kept_reason(reason).ok_or(FailureFault::ReasonNotUtf8)?;
    Ok(())
}

/// The part of a reason that is kept, or `None` where that part is not UTF-8. What lies behind it is
/// never read: failures may share one long span, and reading it for each would cost seconds.
pub(crate) fn kept_reason(reason: &[u8]) -> Option<&str> {
    let Some(start) = reason.get(..REASON_KEPT) else {
        return std::str::from_utf8(reason).ok();
    };
    match std::str::from_utf8(start) {
        Ok(text) => Some(text),
        // A character that the cut splits is not a fault of the plugin's.
        Err(error) if error.error_len().is_none() && reason.len() > REASON_KEPT => {
            std::str::from_utf8(&start[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    }
}

/// `count` records from `start`, or `None` where they leave the list.
pub(crate) fn slice<T>(list: &[T], start: u32, count: u32) -> Option<&[T]> {
    let start = start as usize;
    list.get(start..start.checked_add(count as usize)?)
}
