"""Token ids → text → stop strings → OpenAI chunks. Values in, values out: no IO, clock or chance."""
