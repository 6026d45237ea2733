//! A mouse, a finger and a keyboard. Events enter where the system's would, so the browser decides what they hit and what they do.

use serde_json::{Value, json};

use super::page::Page;
use super::pipe::PATIENCE;
use crate::waiting::within;

/// Where an element's centre is after scrolling there, or why it cannot be reached.
const CENTRE: &str = include_str!("centre.js");
const FOCUSED: &str = include_str!("focused.js");
const SHIFT: u8 = 8;

impl Page {
    /// Clicks into the middle of the first element that is found, as soon as nothing covers it.
    #[track_caller]
    pub fn click(&self, selector: &str) {
        self.press_mouse(selector, 1);
    }

    /// Clicks twice, as fast as a mouse can.
    #[track_caller]
    pub fn double_click(&self, selector: &str) {
        self.press_mouse(selector, 2);
    }

    #[track_caller]
    fn press_mouse(&self, selector: &str, clicks: u32) {
        let (x, y) = self.centre(selector);
        let mouse = |kind: &str, button: &str, count: u32| {
            let event = json!({ "type": kind, "x": x, "y": y, "button": button, "clickCount": count });
            self.command("Input.dispatchMouseEvent", &event);
        };
        mouse("mouseMoved", "none", 0);
        for count in 1..=clicks {
            mouse("mousePressed", "left", count);
            mouse("mouseReleased", "left", count);
        }
    }

    /// Touches the middle of the first element that is found.
    #[track_caller]
    pub fn tap(&self, selector: &str) {
        let (x, y) = self.centre(selector);
        self.command("Emulation.setTouchEmulationEnabled", &json!({ "enabled": true }));
        self.command("Input.dispatchTouchEvent", &json!({ "type": "touchStart", "touchPoints": [{ "x": x, "y": y }] }));
        self.command("Input.dispatchTouchEvent", &json!({ "type": "touchEnd", "touchPoints": [] }));
    }

    #[track_caller]
    fn centre(&self, selector: &str) -> (f64, f64) {
        let js = format!("({CENTRE})({})", json!(selector));
        let mut found = Value::Null;
        let is_free = within(PATIENCE, || {
            found = self.evaluate(&js, None).unwrap_or_else(Value::String);
            found.is_array()
        });
        if !is_free {
            self.fail(&format!("{selector} cannot be hit: {found}"));
        }
        (found[0].as_f64().unwrap_or_default(), found[1].as_f64().unwrap_or_default())
    }

    /// Presses a key and lets it go: `Tab`, `Enter`, `Space`, `Escape`, `Backspace`, an arrow, `Home`, `End`, or one character;
    /// with `Shift+` before it if need be.
    #[track_caller]
    pub fn press(&self, key: &str) {
        let (modifiers, key) = key.strip_prefix("Shift+").map_or((0, key), |key| (SHIFT, key));
        let (key, code, number, text) = match key {
            "Tab" => ("Tab", "Tab", 9, ""),
            "Enter" => ("Enter", "Enter", 13, "\r"),
            "Space" | " " => (" ", "Space", 32, " "),
            "Escape" => ("Escape", "Escape", 27, ""),
            "Backspace" => ("Backspace", "Backspace", 8, ""),
            "End" => ("End", "End", 35, ""),
            "Home" => ("Home", "Home", 36, ""),
            "ArrowLeft" => ("ArrowLeft", "ArrowLeft", 37, ""),
            "ArrowUp" => ("ArrowUp", "ArrowUp", 38, ""),
            "ArrowRight" => ("ArrowRight", "ArrowRight", 39, ""),
            "ArrowDown" => ("ArrowDown", "ArrowDown", 40, ""),
            character if character.chars().count() == 1 => (character, "", 0, character),
            unknown => panic!("there is no key {unknown:?} on this keyboard"),
        };
        let mut event = json!({ "key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": modifiers });
        event["type"] = if text.is_empty() { "rawKeyDown" } else { "keyDown" }.into();
        event["text"] = text.into();
        self.command("Input.dispatchKeyEvent", &event);
        event["type"] = "keyUp".into();
        event["text"] = "".into();
        self.command("Input.dispatchKeyEvent", &event);
    }

    /// Writes into whatever has the focus.
    #[track_caller]
    pub fn write(&self, text: &str) {
        self.command("Input.insertText", &json!({ "text": text }));
    }

    /// What has the focus: `button#buy "Buy now"`; without id `button "Buy now"`; and `body` when nothing has it.
    #[track_caller]
    pub fn focused(&self) -> String {
        self.eval(FOCUSED).as_str().unwrap_or_default().to_owned()
    }
}
