//! The letters of a picture, spoken in English with a hiss over them, for those who cannot see it.

use std::collections::HashMap;

use captcha::Captcha;

use crate::letters::ALPHABET;

/// The samples come as mono of 16 bits at this rate; half of it and 8 bits are enough for a voice, and a quarter of the bytes.
const RATE: u32 = 22_050 / 2;
const WAV_HEADER_BYTES: usize = 44;
/// The hiss: this far to either side of the middle, of 128.
const HISS: u8 = 8;

/// One spoken sample for each letter.
pub struct Voice(HashMap<char, Vec<u8>>);

impl Voice {
    /// Reads the samples. Takes a good part of a second, and 300 KiB.
    pub fn new() -> Self {
        let spoken = |letter: char| {
            let mut captcha = Captcha::new();
            let wav = captcha.set_chars(&[letter]).add_char().as_wav().into_iter().next().flatten();
            let wav = wav.expect("each letter of the alphabet has a sound");
            let samples: Vec<i32> = wav[WAV_HEADER_BYTES..]
                .chunks_exact(2)
                .map(|bytes| i32::from(i16::from_le_bytes([bytes[0], bytes[1]])))
                .collect();
            let halved = samples.chunks_exact(2).map(|pair| (pair[0] + pair[1]) / 2);
            (letter, halved.map(|sample| (sample / 256 + 128).clamp(0, 255) as u8).collect())
        };
        Self(ALPHABET.into_iter().map(spoken).collect())
    }

    /// The letters one after the other: a WAV file of 70 to 110 KiB, another one each time.
    pub fn speak(&self, letters: &str) -> Vec<u8> {
        let spoken = letters.chars().filter_map(|letter| self.0.get(&letter)).flatten();
        let mut random = fastrand::Rng::new();
        let samples: Vec<u8> =
            spoken.map(|sample| sample.saturating_add(random.u8(0..=2 * HISS)).saturating_sub(HISS)).collect();
        let length = u32::try_from(samples.len()).expect("some letters");
        let mut wav = Vec::with_capacity(WAV_HEADER_BYTES + samples.len());
        wav.extend(b"RIFF");
        wav.extend((length + 36).to_le_bytes());
        wav.extend(b"WAVEfmt ");
        wav.extend(16_u32.to_le_bytes());
        // PCM, one channel; bytes a second; bytes a sample; bits a sample.
        wav.extend(1_u16.to_le_bytes());
        wav.extend(1_u16.to_le_bytes());
        wav.extend(RATE.to_le_bytes());
        wav.extend(RATE.to_le_bytes());
        wav.extend(1_u16.to_le_bytes());
        wav.extend(8_u16.to_le_bytes());
        wav.extend(b"data");
        wav.extend(length.to_le_bytes());
        wav.extend(samples);
        wav
    }
}

impl Default for Voice {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_spoken_in_their_order_and_never_twice_alike() {
        let voice = Voice::new();
        let wav = voice.speak("CFH3");
        let (one, length) = (voice.0[&'C'].len(), wav.len() - WAV_HEADER_BYTES);
        assert_eq!(one * 4, length, "every sample is as long");
        assert!((one as u32) > RATE && length < 100_000, "{one}");
        assert_eq!(wav[40..44], (length as u32).to_le_bytes());
        assert_eq!(wav[4..8], (length as u32 + 36).to_le_bytes());
        assert_ne!(wav, voice.speak("CFH3"));
        for (at, letter) in "CFH3".chars().enumerate() {
            let heard = &wav[WAV_HEADER_BYTES + at * one..][..one];
            let far = |from: &[u8]| heard.iter().zip(from).filter(|(a, b)| a.abs_diff(**b) > HISS).count();
            assert_eq!(far(&voice.0[&letter]), 0, "{letter}");
            assert!(far(&voice.0[&'X']) > 0);
        }
        // Loud enough to be more than its hiss.
        assert!(ALPHABET.iter().all(|letter| voice.0[letter].iter().any(|sample| sample.abs_diff(128) > 40)));
    }
}
