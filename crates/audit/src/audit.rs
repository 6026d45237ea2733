//! The audit of a data folder: every sale's log, the books at their own position, and clients' notes where they are given.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use data_encoding::BASE64URL_NOPAD;
use domain::{Promise, sale::name_is_valid};

use crate::books::{Books, Offset, Service};
use crate::model::Model;
use crate::notes::{Notes, NotesError};
use crate::replay::{Cut, Replay, Replayed, Watch};
use crate::report::{AuditReport, SaleReport, Status};
use crate::segments::{last_segment, walk};
use crate::tally::{Claim, Tally};

/// The promises that have something to speak of in this version; an audit that could not check one of them fails.
const APPLICABLE: [Claim; 7] = [
    Claim::Promise(Promise::Conservation),
    Claim::Promise(Promise::SingleHolder),
    Claim::Promise(Promise::Limit),
    Claim::Promise(Promise::DurableAnswer),
    Claim::Promise(Promise::Idempotent),
    Claim::Promise(Promise::Window),
    Claim::Promise(Promise::HonestRefusal),
];

/// Why there is no report. Every one is definite: nothing was judged and nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// There is no data folder there, or it has no sales.
    #[error(
        "{} holds no sales, so there is nothing to read; name the folder that a server was given as its data folder (--data, or \
         data.folder of the configuration)", .0.display()
    )]
    NoSales(PathBuf),
    /// The sale that was asked for is not there.
    #[error("there is no sale {sale:?}; there are: {}", .there.join(", "))]
    SaleUnknown {
        /// What was asked for.
        sale: String,
        /// The sales in the folder.
        there: Vec<String>,
    },
    /// A file could not be read.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The books could not be read.
    #[error("the books: {0}")]
    Books(#[from] rusqlite::Error),
    /// The notes could not be read.
    #[error("the notes: {0}")]
    Notes(String),
}

/// Audits the sales in the data folder, or the one named.
///
/// Reads only, takes no lock, and may run beside a server: the books are held still first, then each log is read to its end, so
/// that the books can be compared with the chain at their own position. `progress` is given a line now and then.
pub fn audit(
    data: &Path,
    sale: Option<&str>,
    notes: Option<&Path>,
    progress: &mut dyn FnMut(&str),
) -> Result<AuditReport, AuditError> {
    let sales = sales_in(data, sale)?;
    let mut notes = notes
        .map(|path| {
            progress("reading the notes");
            Notes::read(path).map_err(|error| notes_error(path, error))
        })
        .transpose()?;
    let books = Books::open(&data.join("books.sqlite"))?;
    let mut tally = Tally::default();
    let mut reports = Vec::new();
    for name in &sales {
        let (report, of_sale) = audit_sale(data, name, books.as_ref(), notes.as_mut(), progress)?;
        tally.add(of_sale, name);
        reports.push(report);
    }
    if let Some(notes) = notes.filter(|_| sale.is_none()) {
        let mut rest = Tally::default();
        notes.check_all_found(&mut rest);
        tally.add(rest, "notes");
    }
    let claims = Promise::ALL.map(Claim::Promise);
    let promises = tally.lines(&claims, &APPLICABLE);
    let proof = tally.lines(&[Claim::Chain, Claim::Heads, Claim::Slots], &[Claim::Chain, Claim::Heads]);
    let nothing = promises.values().chain(proof.values()).any(|report| report.status == Status::NothingChecked);
    let books_compared = reports.iter().any(|sale: &SaleReport| sale.books_lag < sale.records);
    Ok(AuditReport {
        ok: tally.is_clean() && !nothing && books_compared,
        books_compared,
        promises,
        proof,
        sales: reports,
    })
}

/// The names of the sales in a data folder that have a log, sorted; just the named one if one is named.
pub(crate) fn sales_in(data: &Path, sale: Option<&str>) -> Result<Vec<String>, AuditError> {
    let folder = data.join("sales");
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(AuditError::NoSales(data.to_owned())),
        Err(source) => return Err(AuditError::Io { path: folder, source }),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| AuditError::Io { path: folder.clone(), source })?;
        let Some(name) = entry.file_name().to_str().filter(|name| name_is_valid(name)).map(str::to_owned) else {
            continue;
        };
        let path = entry.path();
        if path.is_dir() && last_segment(&path).map_err(|source| AuditError::Io { path, source })? > 0 {
            names.push(name);
        }
    }
    names.sort();
    match sale {
        _ if names.is_empty() => Err(AuditError::NoSales(data.to_owned())),
        None => Ok(names),
        Some(sale) if names.iter().any(|name| name == sale) => Ok(vec![sale.to_owned()]),
        Some(sale) => Err(AuditError::SaleUnknown { sale: sale.to_owned(), there: names }),
    }
}

fn notes_error(path: &Path, error: NotesError) -> AuditError {
    match error {
        NotesError::Io(source) => AuditError::Io { path: path.to_owned(), source },
        NotesError::Line { .. } => AuditError::Notes(error.to_string()),
    }
}

fn audit_sale(
    data: &Path,
    name: &str,
    books: Option<&Books>,
    mut notes: Option<&mut Notes>,
    progress: &mut dyn FnMut(&str),
) -> Result<(SaleReport, Tally), AuditError> {
    progress(&format!("{name}: reading the chain"));
    let offsets = books.map_or_else(|| Ok(Vec::new()), |books| books.offsets(name))?;
    let mut compared = Vec::new();
    let mut compare = |service: Service, model: &mut Model| {
        let started = offsets.iter().any(|(of, offset)| *of == service && offset.next > 0);
        compared.extend(books.map(|books| books.compare(service, name, started, model).map(|()| service)));
    };
    let mut records = notes.as_ref().map_or_else(Vec::new, |notes| notes.records(name));
    records.extend(offsets.iter().filter_map(|(_, offset)| offset.next.checked_sub(1)));
    let mut replay = Replay::new(Watch {
        records,
        heads: Vec::new(),
        cuts: offsets.iter().map(|(service, offset)| Cut { at: offset.next, service: *service }).collect(),
        at_cut: Some(&mut compare),
        with_free_times: notes.is_some(),
    });
    let folder = data.join("sales").join(name);
    let damage = walk(&folder, &mut |batches| {
        replay.feed(batches);
        progress(&format!("{name}: {} records", replay.records()));
    })
    .map_err(|source| AuditError::Io { path: folder, source })?;
    if let Some(damage) = damage {
        replay.damaged(damage);
    }
    let mut replayed = replay.finish();
    let mut tally = std::mem::take(&mut replayed.tally);
    let compared = compared.into_iter().collect::<rusqlite::Result<Vec<_>>>()?;
    for (service, offset) in &offsets {
        check_offset(&replayed, compared.contains(service), *service, offset, &mut tally);
    }
    if let Some(model) = &replayed.model {
        tally.check(Claim::Chain, model.definition.sale == name, || {
            format!("the folder holds the chain of {:?}", model.definition.sale)
        });
        if let Some(notes) = &mut notes {
            notes.check(name, &replayed, model, &mut tally);
        }
    }
    Ok(conclude(name, replayed, &offsets, tally))
}

/// A service must not be ahead of the chain, and must remember the head that the chain has there.
fn check_offset(replayed: &Replayed, compared: bool, service: Service, offset: &Offset, tally: &mut Tally) {
    let end = replayed.end.next;
    if offset.next == 0 {
        // Nothing is projected yet, or never will be, as in the folder of a gate: that is no promise kept.
        return;
    }
    let name = service.name();
    // Only orders are promised to be there, so a right place alone keeps no promise about anything else.
    let mut judge = |holds: bool, evidence: String| {
        if service == Service::Orders || !holds {
            tally.check(service.promise(), holds, || evidence);
        }
    };
    judge(
        compared && offset.next <= end,
        format!("the books of {name} have read {} records, the chain has {end}", offset.next),
    );
    let Some(before) = offset.next.checked_sub(1).filter(|_| offset.next <= end) else { return };
    let chain = replayed.named.get(&before).and_then(|named| named.hash);
    judge(
        offset.head == chain,
        format!("the books of {name} remember another head before record {} than the chain has", offset.next),
    );
}

fn conclude(name: &str, replayed: Replayed, offsets: &[(Service, Offset)], mut tally: Tally) -> (SaleReport, Tally) {
    let end = replayed.end;
    let lag = |of: Service| {
        let read = offsets.iter().find(|(service, _)| *service == of).map_or(0, |(_, offset)| offset.next);
        end.next.saturating_sub(read)
    };
    let mut report = SaleReport {
        sale: name.to_owned(),
        records: end.next,
        batches: end.batches,
        head: BASE64URL_NOPAD.encode(&end.head),
        orders: 0,
        paid: 0,
        released: 0,
        books_lag: lag(Service::Orders),
        services: Service::ALL.map(|service| (service.name(), lag(service))).into(),
    };
    if let Some(model) = replayed.model {
        report.orders = model.grants.len() as u64;
        (report.paid, report.released) = model.ended();
        tally.add_same(model.tally);
    }
    (report, tally)
}
