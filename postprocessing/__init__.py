"""Token ids → text → stop strings → OpenAI chunks. No IO, no clock, no chance."""
