/*
 * Settings come from the file that SHOP_ENV_FILE names, else from config/production.env; dotenv does not override a variable
 * that the process already has. A module of its own: imports are evaluated before the importing module's own statements.
 */

import path from 'node:path';

import { config } from 'dotenv';

const APP_DIR = path.dirname(import.meta.dirname);

config({ path: path.resolve(APP_DIR, process.env.SHOP_ENV_FILE ?? 'config/production.env'), quiet: true });
