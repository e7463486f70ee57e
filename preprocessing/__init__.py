"""Raw OpenAI JSON → typed request → prompt → token ids → engine tensors. No IO, no clock, no chance."""
