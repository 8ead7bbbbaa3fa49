"""Messages to people: Slack, Discord, Telegram, e-mail, any webhook. The only notifier: the switch and the monitoring use it.

A message is news and never a part of what it is about: sending takes a few seconds at most, raises nothing, and a
target that does not answer is one sentence. The text is plain; it is escaped whole for each medium, so that neither a
fact nor a template can call a channel together, link or format.
"""
