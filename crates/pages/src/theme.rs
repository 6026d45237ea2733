//! A shop's two colours, turned into a style in which everything can be read, on light ground and on dark.

use std::fmt;

/// The least contrast of text, as WCAG 2.2 (1.4.3) has it for normal sizes.
const CONTRAST_MIN: f64 = 4.5;
/// The grounds that links stand on, in page.css: paper and ground, light and dark.
const LIGHT: [Colour; 2] = [Colour(0xff, 0xff, 0xff), Colour(0xf3, 0xf4, 0xf6)];
const DARK: [Colour; 2] = [Colour(0x1b, 0x1e, 0x25), Colour(0x10, 0x12, 0x17)];
const BLACK: Colour = Colour(0, 0, 0);
const WHITE: Colour = Colour(0xff, 0xff, 0xff);
/// Steps from a colour to black or white.
const STEPS: u32 = 20;

/// A colour, as red, green and blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour(pub u8, pub u8, pub u8);

impl Colour {
    /// Reads `#rrggbb`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6)?;
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()?;
        Some(Self(bytes[0], bytes[1], bytes[2]))
    }

    /// WCAG's relative luminance.
    fn luminance(self) -> f64 {
        let linear = |channel: u8| {
            let value = f64::from(channel) / 255.0;
            if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(self.0) + 0.7152 * linear(self.1) + 0.0722 * linear(self.2)
    }

    /// WCAG's contrast, 1 to 21.
    fn contrast(self, other: Self) -> f64 {
        let (one, two) = (self.luminance(), other.luminance());
        (one.max(two) + 0.05) / (one.min(two) + 0.05)
    }

    /// Black or white, whichever is read better on it; one of them always has the contrast that text needs.
    fn text(self) -> Self {
        if self.contrast(WHITE) >= self.contrast(BLACK) { WHITE } else { BLACK }
    }

    fn mixed(self, other: Self, step: u32) -> Self {
        let mix = |from: u8, to: u8| {
            let (from, to) = (u32::from(from), u32::from(to));
            ((from * (STEPS - step) + to * step) / STEPS) as u8
        };
        Self(mix(self.0, other.0), mix(self.1, other.1), mix(self.2, other.2))
    }

    /// The colour nearest to it, on the way to `end`, that can be read on all of `grounds`.
    fn readable_on(self, grounds: [Self; 2], end: Self) -> Self {
        let is_readable = |colour: &Self| grounds.iter().all(|ground| colour.contrast(*ground) >= CONTRAST_MIN);
        (0..=STEPS).map(|step| self.mixed(end, step)).find(is_readable).unwrap_or(end)
    }
}

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:02x}{:02x}{:02x}", self.0, self.1, self.2)
    }
}

/// A shop's colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Theme {
    /// Of buttons and links; `None` is the engine's own.
    pub button: Option<Colour>,
    /// Of the bar on top.
    pub bar: Option<Colour>,
}

impl Theme {
    /// The style to put behind page.css; `None` where that says it all.
    pub(crate) fn style(self) -> Option<String> {
        let button = self.button.map(|button| {
            let (light, dark) = (button.readable_on(LIGHT, BLACK), button.readable_on(DARK, WHITE));
            let text = button.text();
            format!(
                ":root{{--button:{button};--on-button:{text};--link:{light}}}\
                 @media(prefers-color-scheme:dark){{:root{{--button:{button};--on-button:{text};--link:{dark}}}}}"
            )
        });
        let bar = self.bar.map(|bar| {
            let text = bar.text();
            format!(
                ":root{{--bar:{bar};--on-bar:{text}}}@media(prefers-color-scheme:dark){{:root{{--bar:{bar};--on-bar:{text}}}}}"
            )
        });
        (button.is_some() || bar.is_some()).then(|| button.unwrap_or_default() + &bar.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn colours_are_read_as_written() {
        assert_eq!(Colour::parse("#1d4eD8"), Some(Colour(0x1d, 0x4e, 0xd8)));
        for wrong in ["", "#fff", "1d4ed8", "#1d4ed80", "#gggggg", "red", "#1d4ed8;}"] {
            assert_eq!(Colour::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_shop_without_colours_has_the_style_of_the_build() {
        assert_eq!(Theme::default().style(), None);
        let style = Theme { button: Some(Colour(0xff, 0xe6, 0x00)), bar: None }.style().unwrap();
        assert!(style.contains("--button:#ffe600;--on-button:#000000;"), "{style}");
    }

    proptest! {
        #[test]
        fn whatever_the_colour_everything_can_be_read(red: u8, green: u8, blue: u8) {
            let colour = Colour(red, green, blue);
            prop_assert!(colour.contrast(colour.text()) >= CONTRAST_MIN);
            for (grounds, end) in [(LIGHT, BLACK), (DARK, WHITE)] {
                let link = colour.readable_on(grounds, end);
                prop_assert!(grounds.iter().all(|ground| link.contrast(*ground) >= CONTRAST_MIN));
            }
        }
    }
}
