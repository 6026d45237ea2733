//! The routes of human checks: a challenge, its sound, the sets that an edge may keep, and the operator's choice.

use std::sync::Arc;

use ::human::{Challenge, Place};
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use domain::{ChainTime, HumanCheck, Refusal, Right, milliseconds};
use engine::Sale;
use gate::identity::Identity;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::admin::admit;
use crate::app::App;
use crate::customers::may_take_pass;
use crate::limits::{self, Kind};
use crate::metrics::CheckOutcome;
use crate::problem::{Problem, ProblemBody};
use crate::{body, identify};

/// Sets are given out for two hours, and never change.
const FOR_AN_HOUR: HeaderValue = HeaderValue::from_static("public, max-age=3600, immutable");
const PNG: HeaderValue = HeaderValue::from_static("image/png");
const WAV: HeaderValue = HeaderValue::from_static("audio/wav");

/// Which challenge is wanted.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChallengeBody {
    /// `proof_of_work` for whoever can neither see nor hear the letters; the sale's own check without it.
    #[serde(default)]
    kind: Option<String>,
    /// Of a static check: another picture than the one before. Counts as a wrong answer.
    #[serde(default)]
    another: bool,
}

/// A challenge, with what has to be done. Send `challenge` and the answer to `POST /v1/sales/{sale}/passes`.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChallengeAnswer {
    /// The token to send back; good for one try.
    challenge: String,
    /// `proof_of_work`, `answer` or `static`.
    kind: &'static str,
    /// How hard it is, from 0.
    level: u8,
    /// So many milliseconds after this answer has come: what is answered sooner is taken for a program's.
    wait_ms: u64,
    /// The last moment for an answer.
    #[schema(value_type = String, format = DateTime)]
    expires_at: ChainTime,
    /// Of a proof of work: the challenge of the ALTCHA protocol, version 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    proof_of_work: Option<::human::Task>,
    /// Of letters: how many there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    letters: Option<usize>,
    /// Of letters: the picture, as a `data:` address or as a path.
    #[serde(skip_serializing_if = "Option::is_none")]
    picture: Option<String>,
    /// Of letters: where they can be heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    audio: Option<String>,
    /// Of a static check: where salt and hash of the answer are.
    #[serde(skip_serializing_if = "Option::is_none")]
    set: Option<String>,
    /// Of a static check: which entry of the set is the picture's.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u16>,
}

/// Get a challenge of the sale's human check.
#[utoipa::path(
    post, path = "/v1/sales/{sale}/challenges", tag = "customers", params(("sale" = String, Path)), request_body = ChallengeBody,
    responses((status = 201, body = ChallengeAnswer), (status = "default", body = ProblemBody)), security(("token" = []))
)]
pub(crate) async fn challenge(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let sale = app.sale(&name)?;
    let identity = limits::identity(&app, &headers, Kind::Passes).await?;
    let wanted: ChallengeBody = body::json(body::content_type(&headers), &bytes)?;
    let now = may_take_pass(&app, &sale, &identity)?;
    let of_sale = sale.showcase().human_check;
    let Some(of_sale) = of_sale else {
        return Err(Problem::new(Refusal::NotFound, "this sale has no human check: take a pass"));
    };
    let check = match wanted.kind.as_deref() {
        None => of_sale,
        Some(kind) => HumanCheck::parse(kind)
            .filter(|check| [of_sale, HumanCheck::ProofOfWork].contains(check))
            .ok_or_else(|| {
                Problem::new(
                    Refusal::Malformed,
                    "kind: proof_of_work or the sale's own; leave it out for the sale's own",
                )
            })?,
    };
    let answer = make(&app, &sale, &identity, check, (check != of_sale, wanted.another), now).await?;
    app.metrics.count_check(Some(check), CheckOutcome::Given);
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

async fn make(
    app: &App,
    sale: &Sale,
    identity: &Identity,
    check: HumanCheck,
    (is_alternative, another): (bool, bool),
    now: ChainTime,
) -> Result<ChallengeAnswer, Problem> {
    let (checks, key) = (&app.human, limits::known_as(&app.engine, identity));
    let customer = identify::pseudonym(sale, identity);
    if another && check == HumanCheck::Static {
        checks.count_failure(&key, 1, now.0).await;
    }
    let standing = checks.standing(&key, now.0).await.admit(now.0)?;
    let level = standing.level(check, is_alternative);
    let lifetime = milliseconds(checks.options.lifetime);
    let mut challenge = Challenge::new(check, level, now, lifetime);
    let path = |rest: &str| format!("/v1/sales/{}/challenges/{rest}", sale.name());
    let (mut picture, mut set, mut index) = (None, None, None);
    match check {
        HumanCheck::ProofOfWork => challenge.rounds = ::human::rounds(checks.options.proof_rounds, level),
        HumanCheck::Answer => {
            let made = checks.picture(level).await?;
            challenge.seed = made.seed;
            picture = Some(format!("data:image/png;base64,{}", BASE64.encode(&made.png)));
        }
        HumanCheck::Static => {
            let place = checks.keys.place_of(sale.id, customer, standing.failures, now);
            challenge.seed = place.seed();
            picture = Some(path(&format!("static/{}/{}.png", place.set, place.index)));
            (set, index) = (Some(path(&format!("static/{}", place.set))), Some(place.index));
        }
    }
    let sealed = checks.keys.seal(sale.id, customer, &challenge);
    let audio = match check {
        HumanCheck::ProofOfWork => None,
        HumanCheck::Answer => Some(path(&format!("{sealed}/audio"))),
        HumanCheck::Static => picture.as_ref().map(|picture| picture.replace(".png", ".wav")),
    };
    Ok(ChallengeAnswer {
        kind: check.name(),
        level,
        wait_ms: checks.not_before(&challenge).0 - challenge.issued_at.0,
        expires_at: challenge.expires_at,
        proof_of_work: (check == HumanCheck::ProofOfWork).then(|| checks.keys.task(&challenge)),
        letters: picture.is_some().then(|| checks.keys.letters_of(sale.id, &challenge).len()),
        picture,
        audio,
        set,
        index,
        challenge: sealed,
    })
}

/// The letters of a challenge, spoken in English.
#[utoipa::path(
    get, path = "/v1/sales/{sale}/challenges/{challenge}/audio", tag = "customers",
    params(("sale" = String, Path), ("challenge" = String, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "audio/wav"), (status = "default", body = ProblemBody)),
    security(("token" = []))
)]
pub(crate) async fn audio(
    State(app): State<Arc<App>>,
    Path((name, text)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let sale = app.sale(&name)?;
    let identity = limits::identity(&app, &headers, Kind::Passes).await?;
    let challenge = app.human.keys.open(sale.id, identify::pseudonym(&sale, &identity), &text);
    let is_spoken = |challenge: &Challenge| challenge.check == HumanCheck::Answer;
    let challenge = challenge.filter(is_spoken).ok_or(Refusal::NotFound)?;
    if challenge.expires_at.0 <= app.engine.now() {
        return Err(Problem::new(Refusal::ChallengeFailed, "the challenge has expired"));
    }
    let letters = app.human.keys.letters_of(sale.id, &challenge);
    Ok(sound(app, letters).await?.into_response())
}

/// The first sound of a process reads the samples, which takes its time.
async fn sound(app: Arc<App>, letters: String) -> Result<impl IntoResponse, Problem> {
    let wav = tokio::task::spawn_blocking(move || app.human.spoken(&letters)).await;
    let wav = wav.map_err(|error| Problem::internal(&error))?;
    Ok(([(header::CONTENT_TYPE, WAV)], wav))
}

/// A set of pictures with the sealed answers. Everybody gets the same, and an edge may keep it.
#[derive(Serialize, ToSchema)]
pub(crate) struct SetAnswer {
    /// `PBKDF2/SHA-256`, over the letters as capitals.
    algorithm: &'static str,
    /// Rounds of it.
    rounds: u32,
    /// The pictures, in order.
    entries: Vec<EntryAnswer>,
}

/// A picture of a set.
#[derive(Serialize, ToSchema)]
pub(crate) struct EntryAnswer {
    /// Path of the picture.
    picture: String,
    /// Path of its letters as a sound.
    audio: String,
    /// Base64url.
    salt: String,
    /// 32 bytes, base64url.
    hash: String,
}

/// A set of the static check.
#[utoipa::path(
    get, path = "/v1/sales/{sale}/challenges/static/{set}", tag = "customers", params(("sale" = String, Path), ("set" = u64, Path)),
    responses((status = 200, body = SetAnswer), (status = "default", body = ProblemBody))
)]
pub(crate) async fn fixed_set(
    State(app): State<Arc<App>>,
    Path((name, number)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (sale, number) = with_static(&app, &name, &number)?;
    let set = app.human.set(&sale, number, ChainTime(app.engine.now())).await?;
    let path = |index: usize, ending: &str| format!("/v1/sales/{name}/challenges/static/{number}/{index}.{ending}");
    let entries = set.0.iter().enumerate().map(|(index, entry)| EntryAnswer {
        picture: path(index, "png"),
        audio: path(index, "wav"),
        salt: BASE64URL_NOPAD.encode(&entry.salt),
        hash: BASE64URL_NOPAD.encode(&entry.hash),
    });
    let answer = SetAnswer { algorithm: "PBKDF2/SHA-256", rounds: ::human::HASH_ROUNDS, entries: entries.collect() };
    Ok(([(header::CACHE_CONTROL, FOR_AN_HOUR)], Json(answer)).into_response())
}

/// A picture of a set, or its letters as a sound: `3.png`, `3.wav`.
#[utoipa::path(
    get, path = "/v1/sales/{sale}/challenges/static/{set}/{file}", tag = "customers",
    params(("sale" = String, Path), ("set" = u64, Path), ("file" = String, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "image/png"), (status = "default", body = ProblemBody))
)]
pub(crate) async fn fixed_file(
    State(app): State<Arc<App>>,
    Path((name, number, file)): Path<(String, String, String)>,
) -> Result<Response, Problem> {
    let (sale, number) = with_static(&app, &name, &number)?;
    let (index, ending) = file.split_once('.').ok_or(Refusal::NotFound)?;
    let place = index.parse().ok().filter(|index| *index < ::human::ENTRIES).map(|index| Place { set: number, index });
    let place = place.ok_or(Refusal::NotFound)?;
    match ending {
        "png" => {
            let set = app.human.set(&sale, number, ChainTime(app.engine.now())).await?;
            let png = set.0[usize::from(place.index)].png.clone();
            Ok(([(header::CONTENT_TYPE, PNG), (header::CACHE_CONTROL, FOR_AN_HOUR)], png).into_response())
        }
        "wav" => {
            let letters = app.human.keys.letters_at(sale.id, place);
            Ok(([(header::CACHE_CONTROL, FOR_AN_HOUR)], sound(app, letters).await?).into_response())
        }
        _ => Err(Refusal::NotFound.into()),
    }
}

/// A sale that gives out that set now, and the set's number.
fn with_static(app: &App, name: &str, set: &str) -> Result<(Arc<Sale>, u64), Refusal> {
    let sale = app.engine.sale(name).filter(|sale| sale.showcase().human_check == Some(HumanCheck::Static));
    let now = ChainTime(app.engine.now());
    let set = set.parse().ok().filter(|set| ::human::is_current(*set, now));
    sale.zip(set).ok_or(Refusal::NotFound)
}

/// A sale's human check.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HumanCheckBody {
    /// `none`, `proof_of_work`, `answer` or `static`.
    human_check: String,
}

/// Choose what a sale asks of a customer before the first pass. Whoever has a pass keeps it, and can renew it.
#[utoipa::path(
    put, path = "/admin/v1/sales/{sale}/human-check", tag = "operator", request_body = HumanCheckBody, params(("sale" = String, Path)),
    responses((status = 200, body = HumanCheckBody), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn set_human_check(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Json<HumanCheckBody>, Problem> {
    admit(&app, &headers, Right::RunSales)?;
    let HumanCheckBody { human_check } = body::json(body::content_type(&headers), &bytes)?;
    let check =
        match human_check.as_str() {
            HumanCheck::NONE => None,
            name => Some(HumanCheck::parse(name).ok_or_else(|| {
                Problem::new(Refusal::Malformed, "human_check: none, proof_of_work, answer or static")
            })?),
        };
    let sale = app.named_sale(&name)?;
    let (setting, of) = (Arc::clone(&app), Arc::clone(&sale));
    let set = tokio::task::spawn_blocking(move || setting.engine.set_human_check(&of, check)).await;
    set.map_err(|error| Problem::internal(&error))?.map_err(|error| Problem::internal(&error))?;
    Ok(Json(HumanCheckBody { human_check }))
}
