"""The live page: a server on this machine alone, and the front end that it shares with reports (`static`)."""
