//! Letters as a picture that programs find harder to read than people do. Programs do read them: it slows them down, and no more.

use captcha::Captcha;
use captcha::filters::{Dots, Noise, Wave};

/// The hardest.
pub const LEVEL_MAX: u8 = 3;
/// Pixels.
pub const PICTURE_WIDTH: u32 = 260;
/// Pixels.
pub const PICTURE_HEIGHT: u32 = 110;

/// A PNG file of 1 to 7 KiB. Takes some milliseconds.
pub(crate) fn draw(letters: &str, level: u8) -> Vec<u8> {
    let mut captcha = Captcha::new();
    for letter in letters.chars() {
        // One at a time, since the crate would choose them itself.
        captcha.set_chars(&[letter]).add_char();
    }
    let (noise, wave, dots) = match level {
        0 => (0.01, 6.0, 4),
        1 => (0.02, 9.0, 8),
        2 => (0.05, 11.0, 12),
        _ => (0.08, 13.0, 16),
    };
    captcha.apply_filter(Noise::new(noise)).apply_filter(Wave::new(2.0, wave).horizontal());
    if level >= 2 {
        captcha.apply_filter(Wave::new(2.0, wave).vertical());
    }
    captcha.view(PICTURE_WIDTH, PICTURE_HEIGHT).apply_filter(Dots::new(dots).min_radius(2).max_radius(4));
    captcha.as_png().expect("pixels in memory become a PNG file")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::letters::ALPHABET;

    #[test]
    fn every_letter_is_drawn_and_pictures_stay_small() {
        let letters: String = ALPHABET.iter().collect();
        for level in 0..=LEVEL_MAX {
            for at in 0..ALPHABET.len() - 5 {
                let (one, another) = (draw(&letters[at..at + 5], level), draw(&letters[at..at + 4], level));
                assert!(one.starts_with(b"\x89PNG") && one.len() < 8_192, "level {level}: {}", one.len());
                assert_eq!((&one[16..20], &one[20..24]), (&260_u32.to_be_bytes()[..], &110_u32.to_be_bytes()[..]));
                // A letter that the font does not have would be left out.
                assert_ne!(one, another);
            }
        }
        for letter in ALPHABET {
            let mut captcha = Captcha::new();
            captcha.set_chars(&[letter]).add_char();
            assert_eq!(captcha.chars(), [letter]);
        }
    }
}
