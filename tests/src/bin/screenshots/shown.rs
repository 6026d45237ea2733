//! Which pages are shown, to whom, and how one sees that they are ready. A new page is a line here.

use crate::scene::Scene;

/// A page, and the languages that it is shown in.
pub(crate) struct Shown {
    pub(crate) name: &'static str,
    pub(crate) url: fn(&Scene) -> String,
    /// Who looks at it, signed in.
    pub(crate) who: Option<&'static str>,
    /// What they press first.
    pub(crate) press: Option<&'static str>,
    /// True when it shows what it is to show.
    pub(crate) until: &'static str,
    pub(crate) languages: &'static [&'static str],
    pub(crate) has_scripts: bool,
    /// All of it, or what a window shows first.
    pub(crate) is_whole: bool,
}

const EVERY_LANGUAGE: &[&str] = &["en", "de", "ar", "zh"];
/// Holds something, and has paid nothing.
const BERT: Option<&str> = Some("bert");
/// Has paid.
const CLARA: Option<&str> = Some("clara");
/// Looks.
const ANNA: Option<&str> = Some("anna");
/// A hold, and its clock.
const PAYING: &str = "document.querySelector('[data-state=yours] .clock')?.hidden === false";

const fn of(name: &'static str, url: fn(&Scene) -> String, who: Option<&'static str>, until: &'static str) -> Shown {
    Shown { name, url, who, press: None, until, languages: &["en"], has_scripts: true, is_whole: true }
}

pub(crate) const PAGES: [Shown; 23] = [
    of("sales", |scene| scene.url("/"), None, "true"),
    of("not-yet", |scene| scene.url("/sales/night"), ANNA, "!document.querySelector('[data-show=clock]').hidden"),
    of("signed-out", |scene| scene.url("/sales/winter"), None, "!document.querySelector('#signed-out').hidden"),
    Shown {
        languages: EVERY_LANGUAGE,
        ..of(
            "open",
            |scene| scene.url("/sales/winter"),
            ANNA,
            "document.querySelectorAll('[data-state=open]').length > 1",
        )
    },
    Shown {
        languages: &["en", "ar"],
        ..of(
            "check",
            |scene| scene.url("/sales/evening"),
            ANNA,
            "document.querySelector('#check img')?.naturalWidth > 0",
        )
    },
    Shown {
        press: Some("[data-do=press]"),
        ..of(
            "your-turn",
            |scene| scene.url("/sales/turn"),
            Some("late"),
            "document.querySelector('[data-state=your_turn] .clock')?.hidden === false",
        )
    },
    of("yours", |scene| scene.url("/sales/winter"), BERT, PAYING),
    of("paid", |scene| scene.url("/sales/winter"), CLARA, "Boolean(document.querySelector('[data-state=paid]'))"),
    of(
        "may-return",
        |scene| scene.url("/sales/rare"),
        ANNA,
        "Boolean(document.querySelector('[data-state=may_return]'))",
    ),
    of("gone", |scene| scene.url("/sales/last"), ANNA, "Boolean(document.querySelector('[data-state=gone]'))"),
    of("paused", |scene| scene.url("/sales/paused"), ANNA, "Boolean(document.querySelector('[data-state=paused]'))"),
    of("closed", |scene| scene.url("/sales/closed"), ANNA, "Boolean(document.querySelector('[data-state=closed]'))"),
    Shown {
        is_whole: false,
        ..of(
            "many",
            |scene| scene.url("/sales/many"),
            ANNA,
            "document.querySelectorAll('[data-state=open]').length > 11",
        )
    },
    of(
        "themed",
        |scene| scene.themed_url("/sales/rehearsal"),
        ANNA,
        "Boolean(document.querySelector('[data-state=open]'))",
    ),
    Shown { has_scripts: false, ..of("no-script", |scene| scene.url("/sales/winter"), None, "true") },
    Shown { languages: EVERY_LANGUAGE, ..of("order-held", |scene| scene.url(&scene.held), BERT, PAYING) },
    of("order-paid", |scene| scene.url(&scene.paid), CLARA, "Boolean(document.querySelector('[data-state=paid]'))"),
    of(
        "order-given-back",
        |scene| scene.url(&scene.given_back),
        CLARA,
        "Boolean(document.querySelector('[data-state=ended]'))",
    ),
    of("mine", |scene| scene.url("/mine"), CLARA, "document.querySelectorAll('[data-orders] li').length > 2"),
    of("missing", |scene| scene.url("/sales/nothing"), None, "true"),
    of("sandbox", |scene| scene.payment.clone(), None, "true"),
    Shown { is_whole: false, ..of("docs", |scene| scene.url("/docs"), None, "true") },
    of("error", |scene| scene.url("/docs/errors/sold_out"), None, "true"),
];
