"""The paper's run from start to finish, and its backup. Imports only the heart."""
