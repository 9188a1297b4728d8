"""Answers as gpt-oss samples them, good and broken, with the flaw that each broken one has."""

THINK = "<|channel|>analysis<|message|>The user wants it.<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>"
ANSWER = THINK + FINAL + "Paris is it.<|return|>"
CALL = '<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "Rome"}<|call|>'

# Each before anything is visible.
BROKEN = {
    "no_message": "I think that<|return|>",
    "no_channel": "<|message|>secret<|return|>",
    "unknown_channel": "<|channel|>finale<|message|>secret<|return|>",
    "foreign_role": "<|start|>user<|message|>secret<|return|>",
    "unknown_tool": "<|channel|>commentary to=functions.nuke<|message|>{}<|call|>",
    "no_answer": "<|channel|>analysis<|message|>secret<|return|>",
    "empty": "<|return|>",
    "endless_header": "<|channel|>final" + " word" * 80,
}
MENDED = {
    "stray_text": THINK.replace("<|start|>", " so<|start|>") + FINAL + "Paris is it.<|return|>",
    "odd_header": "<|channel|>commentary<|channel|>final<|message|>Paris is it.<|return|>",
    "no_end": THINK.replace("<|end|>", "") + FINAL + "Paris is it.<|return|>",
}
