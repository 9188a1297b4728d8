"""The harmony format of gpt-oss: channels, calls, and what to make of answers that break it."""
